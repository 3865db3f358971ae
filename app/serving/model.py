"""One served model: its bundle, its parsers, its queue, and its device in this process or in workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scpalm.app.errors import QueueFullError
from scpalm.app.execution.supervisor import Supervisor
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.queue.transport import Lane, Transport
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.model.bundle import Bundle, Identity
from scpalm.model.sessions.session import SessionInfo

_LOOK_SECONDS = 0.2
# How long a service waits for a worker that has opened a new version of a model.
_WORKER_SECONDS = 60.0


@dataclass(frozen=True)
class ServingLimits:
    """Limits of a served model.

    Attributes:
        bulk_cells: requests with more cells use the bulk lane.
        stall_seconds: a device loop without progress for longer counts as dead.
        stop_seconds: maximum wait for queued work when the model is closed.
    """

    bulk_cells: int
    stall_seconds: float
    stop_seconds: float


@dataclass(frozen=True, eq=False)
class Device:
    """The session of a model, or what is known about it if workers run it.

    Attributes:
        info: sizes, runtime and device.
        rate: cells per second, measured when the session was opened; 0 if workers run it.
        supervisor: supervisor of the device loop; None if workers run it.
    """

    info: SessionInfo
    rate: float = 0.0
    supervisor: Supervisor | None = None


class ServedModel:
    """A model that requests can use. They hold it with `held` while they do.

    Attributes:
        bundle: the bundle of the model.
        parsers: parser processes that know its genes.
        transport: queue of the model.
    """

    def __init__(
        self, bundle: Bundle, parsers: ParserPool, transport: Transport, device: Device, limits: ServingLimits
    ) -> None:
        self.bundle = bundle
        self.parsers = parsers
        self.transport = transport
        self._device = device
        self._limits = limits
        self._num_holders = 0
        self._free = asyncio.Event()
        self._free.set()

    def __str__(self) -> str:
        return f"{self.bundle.name} {self.bundle.version}"

    @property
    def identity(self) -> Identity:
        """Name, version and checksum."""
        return self.bundle.identity

    @property
    def memory(self) -> MemoryBudget:
        """Budget of the memory that requests take."""
        return self.parsers.memory

    @property
    def facts(self) -> dict[str, object]:
        """Facts about the model for health checks and the log."""
        precision = self.bundle.manifest.get("precision")
        return {
            "name": self.bundle.name,
            "version": self.bundle.version,
            "checksum": self.identity[2],
            "runtime": self.info.runtime,
            "device": self.info.device,
            "precision": precision["weights"] if isinstance(precision, dict) and "weights" in precision else "float16",
            "cells_per_second": round(self._device.rate) or None,
        }

    @property
    def info(self) -> SessionInfo:
        """Sizes, runtime and device. If workers run the model, the devices that they last reported."""
        if self._device.supervisor is not None:
            return self._device.info
        return replace(self._device.info, device=", ".join(self.transport.devices))

    def lane_of(self, num_cells: int) -> Lane:
        """The lane for a request: bulk for large files, online for interactive requests."""
        return "bulk" if num_cells > self._limits.bulk_cells else "online"

    def check(self) -> None:
        """Raise QueueFullError if the queue is full, or NotReadyError if the queue or its workers are unreachable."""
        fault = self.transport.fault()
        if fault is not None:
            raise fault
        depth = self.transport.depth()
        if depth.full:
            raise QueueFullError(
                f"{sum(depth.rows.values())} cells are waiting. Try again in {depth.retry_after} s.",
                retry_after=depth.retry_after,
            )

    def alive(self) -> bool:
        """Whether the device loop has made progress recently. True if workers run the model."""
        supervisor = self._device.supervisor
        return supervisor is None or supervisor.alive(self._limits.stall_seconds)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the model while a request or a job needs it."""
        self._num_holders += 1
        self._free.clear()
        try:
            yield
        finally:
            self._num_holders -= 1
            if not self._num_holders:
                self._free.set()

    async def released(self) -> None:
        """Wait until no request or job holds the model; in a worker, until no service sends work to its queue."""
        await self._free.wait()
        while self._device.supervisor is not None and self.transport.in_use:
            await asyncio.sleep(_LOOK_SECONDS)

    async def wait_for_worker(self, predecessor: ServedModel) -> bool:
        """Wait until this model can compute, or its predecessor cannot; False if neither happens in time."""
        ends = time.monotonic() + _WORKER_SECONDS
        while self.transport.fault() is not None and predecessor.transport.fault() is None:
            if time.monotonic() > ends:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def close(self, *, at_once: bool = False) -> None:
        """Finish queued work, unless ``at_once``, then stop threads and processes."""
        self.transport.close()
        ends = time.monotonic() + (0.0 if at_once else self._limits.stop_seconds)
        while not self.transport.idle and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        if self._device.supervisor is not None:
            await self._device.supervisor.stop()
        await asyncio.to_thread(self.parsers.close)
        await self.transport.stop()
