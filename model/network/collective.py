"""Sums over all processes of a training run, in the order of their ranks; with one process, nothing happens."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes of this run; 1 where none were started together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 for the first."""
    return dist.get_rank() if world_size() > 1 else 0


class _Total(torch.autograd.Function):
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


def total(tensor: Tensor) -> Tensor:
    """The sum of everybody's tensor, of the same shape; gradients flow back to every process's part."""
    if world_size() == 1:
        return tensor
    out: Tensor = _Total.apply(tensor)
    return out


def gathered(tensor: Tensor) -> Tensor:
    """``[B, ...] -> [processes * B, ...]`` with gradients; every process gives the same B."""
    if world_size() == 1:
        return tensor
    # A sum of disjoint blocks: one collective with a gradient, instead of two.
    size = len(tensor)
    whole = tensor.new_zeros(world_size() * size, *tensor.shape[1:])
    start = rank() * size
    return total(torch.cat([whole[:start], tensor, whole[start + size :]]))


def from_first(tensor: Tensor) -> None:
    """Overwrite everybody's tensor with that of the first process."""
    if world_size() > 1:
        dist.broadcast(tensor.data, src=0)
