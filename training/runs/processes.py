"""Data-parallel training under ``torchrun``: the processes, their devices, and each one's share of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from scpalm.model.network.collective import rank, world_size
from scpalm.training.runs.run import RunError


def under_torchrun() -> bool:
    """Whether ``torchrun`` started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_device(device: torch.device) -> torch.device:
    """Under ``torchrun``, each process of a machine takes a different GPU."""
    if device.type == "cuda" and under_torchrun():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes within the block: gloo on CPUs, NCCL on GPUs. Without ``torchrun`` nothing happens.

    Raises RunError when there are fewer GPUs than processes on this machine.
    """
    if not under_torchrun():
        yield
        return
    backend = "gloo"
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise RunError(
                f"Process {os.environ['LOCAL_RANK']} of this machine has no GPU: PyTorch sees "
                f"{torch.cuda.device_count()}. Start torchrun with --nproc-per-node={torch.cuda.device_count()}."
            )
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process writes files and reports; also before the processes are connected."""
    return rank() == 0 if world_size() > 1 else int(os.environ.get("RANK", "0")) == 0


def barrier() -> None:
    """Return when every process has reached this call."""
    if world_size() > 1:
        dist.barrier()


def any_process(*, flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([float(flag)])  # on the CPU, so over gloo even with GPUs
    dist.all_reduce(flags)
    return bool(flags.item() > 0)


def sum_over_processes(array: NDArray[Any]) -> None:
    """Replace the array by its sum over all processes; contiguous and of the same shape in each."""
    if world_size() == 1:
        return
    if array.dtype == np.uint16:  # collectives do not support this type
        wide = torch.from_numpy(array.astype(np.int32))
        dist.all_reduce(wide)
        array[...] = wide.numpy()
        return
    dist.all_reduce(torch.from_numpy(array))  # on the CPU, so over gloo even with GPUs


def slices_of_process(batch_size: int, parts: int) -> list[slice]:
    """This process's cells of a batch, in the parts that it computes one after the other.

    Raises RunError when the batch cannot be divided evenly.
    """
    pieces = world_size() * parts
    if batch_size % pieces:
        raise RunError(
            f"batch_size {batch_size} cannot be divided by {world_size()} processes x accumulate {parts}. "
            f"Set batch_size to a multiple of {pieces}."
        )
    size = batch_size // pieces
    first = rank() * parts
    return [slice((first + i) * size, (first + i + 1) * size) for i in range(parts)]
