"""Collective operations over the processes of a training run. With one process they do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes in this run; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, 0 for the first."""
    return dist.get_rank() if world_size() > 1 else 0


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        out = gradients[0].contiguous().clone()
        dist.all_reduce(out)
        return out


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes. Gradients flow back to the tensor of every process."""
    if world_size() == 1:
        return tensor
    out: Tensor = _AllReduceSum.apply(tensor)
    return out


def all_gather_rows(tensor: Tensor) -> Tensor:
    """``[B, ...] -> [num_processes * B, ...]``, with gradients. B must be the same in every process."""
    if world_size() == 1:
        return tensor
    # A sum of disjoint blocks, so that one collective has the gradient for both operations.
    size = len(tensor)
    zeros = tensor.new_zeros(world_size() * size, *tensor.shape[1:])
    start = rank() * size
    return all_reduce_sum(torch.cat([zeros[:start], tensor, zeros[start + size :]]))


def broadcast_from_first(tensor: Tensor) -> None:
    """Overwrite the tensor of every process with that of the first."""
    if world_size() > 1:
        dist.broadcast(tensor.data, src=0)
