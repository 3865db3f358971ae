"""The most that a device can do: FLOP/s of a large matrix product, and bytes per second of copies."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def wait(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    run: Callable[[], object], device: torch.device, *, repeats: int = 5, most_seconds: float = 5.0
) -> float:
    """Median seconds of a function after one call to warm up; fewer repeats if they would take ``most_seconds``."""
    run()
    wait(device)
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) + times[-1] < most_seconds):
        started = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype, size: int, *, repeats: int = 9) -> float:
    """FLOP/s of a square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / seconds_of(lambda: torch.mm(a, b, out=out), device, repeats=repeats)


@torch.inference_mode()
def device_copy_rate(device: torch.device, num_bytes: int) -> float:
    """Bytes per second that a copy in device memory reads and writes."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / seconds_of(lambda: target.copy_(source), device)


@torch.inference_mode()
def transfer_rate(device: torch.device, num_bytes: int, *, pinned: bool, to_device: bool) -> float:
    """Bytes per second between host and device memory. Pinned host memory needs a GPU."""
    on_host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=pinned)
    on_device = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    source, target = (on_host, on_device) if to_device else (on_device, on_host)
    return num_bytes / seconds_of(lambda: target.copy_(source, non_blocking=pinned), device)
