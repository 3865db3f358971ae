"""A device with its streams: one to compute on, and one for copies in each direction.

On the CPU the same classes work without streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.errors import DeviceLostError


class Device:
    """A device with its streams."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            self.compute, self.copy_in, self.copy_out = (torch.cuda.Stream(device) for _ in range(3))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Run what follows on the stream to compute on, without gradients. Raises DeviceLostError."""
        try:
            with torch.inference_mode(), torch.cuda.stream(self.compute) if self.on_gpu else nullcontext():
                yield
        except RuntimeError as error:
            if self.is_lost():
                raise DeviceLostError(f"{self.device}: {error}") from error
            raise

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory of the device."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def put(self, values: NDArray[np.generic]) -> Tensor:
        """A copy on the device."""
        return torch.from_numpy(values).to(self.device)

    def is_lost(self) -> bool:
        """Whether every call to the device fails. After some errors CUDA does so until the process ends."""
        if not self.on_gpu:
            return False
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return True
        return False

    def fetch(self, values: Tensor) -> Fetched:
        """Start to copy what was computed so far to the host."""
        if not self.on_gpu:
            return Fetched(values)
        out = torch.empty(tuple(values.shape), dtype=values.dtype, pin_memory=True)
        self.copy_out.wait_stream(self.compute)
        with torch.cuda.stream(self.copy_out):
            out.copy_(values, non_blocking=True)
            values.record_stream(self.copy_out)
            return Fetched(out, self.copy_out.record_event())


class Fetched:
    """Values that are being copied to the host."""

    def __init__(self, values: Tensor, copied: torch.cuda.Event | None = None) -> None:
        self._values, self._copied = values, copied

    def numpy(self) -> NDArray[np.generic]:
        """The values, when they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        array: NDArray[np.generic] = self._values.numpy()
        return array
