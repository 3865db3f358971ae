"""Open a bundle for serving: its session, parser processes, queue and device loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from scpalm.app.background import TaskSupervisor
from scpalm.app.execution.supervisor import Supervisor
from scpalm.app.execution.worker import Worker
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import default_limits
from scpalm.app.queue.registry import QueueEvents, QueueOptions, open_transport
from scpalm.app.queue.transport import Transport
from scpalm.app.serving.model import Device, ServedModel, ServingLimits
from scpalm.app.settings import Settings
from scpalm.app.storage.memory_budget import MemoryBudget, parser_bytes
from scpalm.app.storage.memory_limit import memory_limit
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.sessions.base import info_of, network_config
from scpalm.model.sessions.session import Session, SessionInfo, Speed

log = logging.getLogger("scpalm.opener")

OpenSession = Callable[[Bundle, Settings], Session]


class Role(Enum):
    """The role of a process: all parts, or with a shared queue either requests or work."""

    ALL = "all"
    REQUESTS = "requests"
    WORK = "work"


@dataclass(frozen=True)
class ParserSpace:
    """Where parsers find their files, and the budget of what they read.

    Attributes:
        directory: folder for uploads and temporary files, which this process owns.
        uploads: further folders with uploads, such as those of jobs.
        memory: budget of the memory that requests take.
    """

    directory: Path
    uploads: tuple[Path, ...]
    memory: MemoryBudget


def open_default_session(bundle: Bundle, settings: Settings) -> Session:
    """Open the session chosen by the settings."""
    return open_runtime(bundle, device=settings.device, runtime=settings.runtime, threads=settings.threads)


class ModelOpener:
    """Opens bundles according to the settings.

    Args:
        settings: settings of the process.
        metrics: metrics of the process.
        open_session: opens a session; it runs in a thread.
        role: role of the process. REQUESTS opens no sessions.
        tasks: supervisor of the background tasks.
        space: where parsers find their files, and the budget of what they read.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        open_session: OpenSession,
        role: Role,
        tasks: TaskSupervisor,
        space: ParserSpace,
    ) -> None:
        self._space = space
        self._settings, self._metrics, self._tasks = settings, metrics, tasks
        self._open_session, self._role = open_session, role

    async def open(self, bundle: Bundle, on_wait: Callable[[str], object]) -> ServedModel:
        """Open a model. While the queue's server is away, ``on_wait`` receives a message for users.

        Raises the errors of the session, the parsers and the queue. After an error nothing is left running.
        """
        settings = self._settings
        opened = None if self._role is Role.REQUESTS else await asyncio.to_thread(self._open_warm, bundle)
        parsers = self._open_parsers(bundle)
        transport: Transport | None = None
        try:
            transport = open_transport(self.queue_options())
            await parsers.start()
            self._metrics.parsers_isolated.set(not parsers.missing_isolation)
            await transport.start(bundle, on_wait)
            device = Device(session_info(bundle)) if opened is None else self._start_device(*opened, transport)
        except BaseException:
            await asyncio.to_thread(parsers.close)
            if transport is not None:
                await transport.stop()
            raise
        limits = ServingLimits(settings.bulk_cells, settings.stall_seconds, settings.stop_seconds)
        return ServedModel(bundle, parsers, transport, device, limits)

    def queue_options(self) -> QueueOptions:
        """The options of the queue, with events connected to the metrics."""
        settings, metrics = self._settings, self._metrics
        return QueueOptions(
            max_rows=settings.max_queued_cells,
            max_bytes=settings.max_queued_bytes,
            url=settings.redis_url,
            spool_url=settings.spool_url or str(settings.spool_dir / "scpalm-spool"),
            lease_seconds=settings.lease_seconds,
            stall_seconds=settings.stall_seconds,
            takes_requests=self._role is not Role.WORK,
            tasks=self._tasks,
            events=QueueEvents(
                on_redelivery=metrics.redeliveries.inc,
                on_dead_letter=lambda: metrics.drop("dead_letter"),
                on_drop=lambda: metrics.drop("client_gone"),
            ),
        )

    def _open_warm(self, bundle: Bundle) -> tuple[Session, Speed]:
        session = self._open_session(bundle, self._settings)
        return session, session.warm_up()

    def _open_parsers(self, bundle: Bundle) -> ParserPool:
        settings = self._settings
        memory_bytes = settings.max_memory_bytes or memory_limit()
        limits = default_limits(
            parser_bytes(memory_bytes, settings.parser_processes),
            seconds=settings.parse_seconds,
            max_cells=settings.max_cells,
            max_bytes=settings.max_body_bytes,
        )
        genes = bundle.path / "genes.parquet"
        space = self._space
        return ParserPool(
            genes,
            limits,
            num_processes=settings.parser_processes,
            directory=space.directory,
            uploads=(space.directory, *space.uploads),
            memory=space.memory,
        )

    def _start_device(self, session: Session, speed: Speed, transport: Transport) -> Device:
        transport.serve_leases(session.info)
        metrics, batch_rows = self._metrics, self._settings.batch_cells or speed.batch_cells
        log.info(
            "%s on %s: batches of up to %d cells, %.0f cells/s",
            session.info.runtime,
            session.info.device,
            batch_rows,
            speed.cells_per_second,
        )
        supervisor = Supervisor(lambda: Worker(session, transport, metrics, batch_rows=batch_rows), self._tasks)
        supervisor.start()
        return Device(session.info, speed.cells_per_second, supervisor)


def session_info(bundle: Bundle) -> SessionInfo:
    """The SessionInfo of a bundle, read without a runtime. Raises BundleError."""
    return info_of(network_config(bundle), runtime="onnx", device="")
