"""One model as it is served: its bundle, parsers that know its genes, its queue, and its device, here or elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum

from scpalm.app.errors import QueueFullError
from scpalm.app.execution.supervisor import Supervisor
from scpalm.app.execution.worker import Worker
from scpalm.app.parsing.pool import ParserPool, default_limits
from scpalm.app.queue.registry import QueueEvents, QueueOptions, open_transport
from scpalm.app.queue.transport import Lane, Transport
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.sessions.base import network_config
from scpalm.model.sessions.session import Session, SessionInfo

log = logging.getLogger("scpalm.service")

OpenSession = Callable[[Bundle, Settings], Session]


class Role(Enum):
    """What a process does: everything, or with a queue in Redis one of two halves."""

    ALL = "all"
    REQUESTS = "requests"
    WORK = "work"


def open_default_session(bundle: Bundle, settings: Settings) -> Session:
    return open_runtime(bundle, device=settings.device, runtime=settings.runtime, threads=settings.threads)


class ServedModel:
    """Made by `open_model`. Every request holds it while it needs it, so that a successor does not end it too early.

    Attributes:
        bundle, parsers, transport: of this model alone. identity: name, version and checksum.
        rate: cells a second of its session, measured when it was opened; 0 where the device is elsewhere.
    """

    def __init__(
        self,
        bundle: Bundle,
        info: SessionInfo,
        parsers: ParserPool,
        transport: Transport,
        supervisor: Supervisor | None,
        settings: Settings,
        rate: float,
    ) -> None:
        self.bundle = bundle
        self.parsers = parsers
        self.transport = transport
        self.identity = bundle.identity
        self.rate = rate
        self._info = info
        self._supervisor = supervisor
        self._settings = settings
        self._holders = 0
        self._free = asyncio.Event()
        self._free.set()

    def __str__(self) -> str:
        return f"{self.bundle.name} {self.bundle.version}"

    @property
    def about(self) -> dict[str, object]:
        """What operators want to know of a model that serves."""
        precision = self.bundle.manifest.get("precision")
        return {
            "name": self.bundle.name,
            "version": self.bundle.version,
            "checksum": self.identity[2],
            "runtime": self.info.runtime,
            "device": self.info.device,
            "precision": precision["weights"] if isinstance(precision, dict) and "weights" in precision else "float16",
            "cells_per_second": round(self.rate) or None,
        }

    @property
    def info(self) -> SessionInfo:
        """What the session is; where workers elsewhere have it, their devices as last seen."""
        return (
            self._info
            if self._supervisor is not None
            else replace(self._info, device=", ".join(self.transport.devices))
        )

    def lane_of(self, num_cells: int) -> Lane:
        """Files go to the bulk lane, what a person waits for to the online one."""
        return "bulk" if num_cells > self._settings.bulk_cells else "online"

    def check(self) -> None:
        """Raises QueueFullError, and NotReadyError where the queue or its workers are elsewhere and away."""
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
        """The device loop moved lately; true where it is elsewhere."""
        return self._supervisor is None or self._supervisor.alive(self._settings.stall_seconds)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While a request, a job or its answer needs the model."""
        self._holders += 1
        self._free.clear()
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._free.set()

    async def released(self) -> None:
        """Wait until nobody holds the model."""
        await self._free.wait()

    async def close(self) -> None:
        """Finish what is queued, then end threads and processes."""
        self.transport.close()
        ends = time.monotonic() + self._settings.stop_seconds
        while not self.transport.idle and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        if self._supervisor is not None:
            await self._supervisor.stop()
        await asyncio.to_thread(self.parsers.close)
        await self.transport.stop()


def info_of(bundle: Bundle) -> SessionInfo:
    """What a session of the bundle would be, found without a runtime. Raises BundleError."""
    config = network_config(bundle)
    return SessionInfo("onnx", "", config.width, config.num_tokens, config.num_codes, config.num_genes)


def queue_options(settings: Settings, metrics: Metrics) -> QueueOptions:
    """What the settings say of the queue; its events are counted in ``metrics``."""
    return QueueOptions(
        max_rows=settings.max_queued_cells,
        max_bytes=settings.max_queued_bytes,
        url=settings.redis_url,
        spool_url=settings.spool_url or str(settings.spool_dir / "scpalm-spool"),
        lease_seconds=settings.lease_seconds,
        stall_seconds=settings.stall_seconds,
        events=QueueEvents(
            on_redelivery=metrics.redeliveries.inc,
            on_dead_letter=lambda: metrics.drop("dead_letter"),
            on_drop=lambda: metrics.drop("client_gone"),
        ),
    )


async def open_model(
    bundle: Bundle,
    settings: Settings,
    metrics: Metrics,
    open_session: OpenSession,
    role: Role,
    on_wait: Callable[[str], object],
) -> ServedModel:
    """A model ready to be asked; ``on_wait`` is told what it waits for, when Redis is away.

    Raises what opening the session, the parsers and the queue raise; nothing of it is left running then.
    """
    session = None if role is Role.REQUESTS else await asyncio.to_thread(_open, open_session, bundle, settings)
    info, rate = (session[0].info, session[1]) if session is not None else (info_of(bundle), 0.0)
    limits = default_limits(
        seconds=settings.parse_seconds, max_cells=settings.max_cells, max_bytes=settings.max_body_bytes
    )
    parsers = ParserPool(
        bundle.path / "genes.parquet",
        limits,
        num_processes=settings.parser_processes,
        directory=settings.spool_dir,
    )
    transport: Transport | None = None
    try:
        transport = open_transport(queue_options(settings, metrics))
        await parsers.start()
        await transport.start(bundle, on_wait)
    except BaseException:
        await asyncio.to_thread(parsers.close)
        if transport is not None:
            await transport.stop()
        raise
    supervisor = None if session is None else _start_worker(session[0], transport, settings, metrics)
    return ServedModel(bundle, info, parsers, transport, supervisor, settings, rate)


def _open(open_session: OpenSession, bundle: Bundle, settings: Settings) -> tuple[Session, float]:
    session = open_session(bundle, settings)
    return session, session.warm_up()


def _start_worker(session: Session, transport: Transport, settings: Settings, metrics: Metrics) -> Supervisor:
    transport.serve_leases(session.info)
    supervisor = Supervisor(lambda: Worker(session, transport, metrics, batch_rows=settings.batch_cells))
    supervisor.start()
    return supervisor
