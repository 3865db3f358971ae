"""The parts of one running service, and the states it goes through: starting, ready, draining, or failed."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import DrainingError, JobStorageError, NotReadyError, QueueFullError
from app.keys import charge_rows
from app.parsing import ParserPool
from app.runtime import open_runtime
from app.settings import Settings
from app.supervisor import Supervisor
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import Tracing
from app.transport import Lane, Transport
from app.transport.memory import MemoryTransport
from app.worker import Worker
from model.bundle import Bundle
from model.sessions import Session

if TYPE_CHECKING:
    from app.jobs.runner import JobRunner

log = logging.getLogger("scpalm.service")


class State(Enum):
    """Where a service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True)
class _Loaded:
    bundle: Bundle
    session: Session
    parsers: ParserPool
    supervisor: Supervisor
    jobs: JobRunner


OpenSession = Callable[[Bundle, Settings], Session]


def open_default_session(bundle: Bundle, settings: Settings) -> Session:
    return open_runtime(bundle, device=settings.device, threads=settings.threads)


class Service:
    """Bundle, session, transport, worker and parsers of one app. Made at once; `start` loads the model beside it."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        open_session: OpenSession = open_default_session,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.tracing = tracing
        self.state = State.STARTING
        self.failure = ""
        self.transport: Transport = MemoryTransport(
            max_rows=settings.max_queued_cells,
            max_bytes=settings.max_queued_bytes,
            on_redelivery=metrics.redeliveries.inc,
            on_admit=charge_rows,
        )
        metrics.watch_queue(self.transport.depth)
        self._open_session = open_session
        self._loaded: _Loaded | None = None
        self._uploads = 0
        self._loading: asyncio.Task[None] | None = None
        self.settled = asyncio.Event()

    # --- what is loaded

    @property
    def bundle(self) -> Bundle:
        """Raises NotReadyError until the model is loaded, as do the next two."""
        return self._need().bundle

    @property
    def session(self) -> Session:
        return self._need().session

    @property
    def jobs(self) -> JobRunner:
        return self._need().jobs

    @property
    def parsers(self) -> ParserPool:
        return self._need().parsers

    def _need(self) -> _Loaded:
        if self._loaded is None:
            raise self._not_ready()
        return self._loaded

    def _not_ready(self) -> NotReadyError:
        if self.state is State.FAILED:
            return NotReadyError(f"The model could not be loaded: {self.failure}")
        return NotReadyError("The model is being loaded. Try again in a moment.", retry_after=1)

    # --- health

    def check_ready(self) -> None:
        """Raises NotReadyError, DrainingError or QueueFullError where a request should not start."""
        if self.state is State.DRAINING:
            raise DrainingError("The service takes no new work. Send the request to another replica.")
        if self.state is not State.READY:
            raise self._not_ready()
        depth = self.transport.depth()
        if depth.full:
            raise QueueFullError(
                f"{sum(depth.rows.values())} cells are waiting. Try again in {depth.retry_after} s.",
                retry_after=depth.retry_after,
            )

    def live(self) -> bool:
        """The device loop moved lately; true while there is none yet."""
        return self._loaded is None or self._loaded.supervisor.alive(self.settings.stall_seconds)

    @contextmanager
    def upload_slot(self) -> Iterator[None]:
        """Held while a body is received and parsed. Raises QueueFullError when too many are."""
        if self._uploads >= self.settings.max_uploads:
            raise QueueFullError(f"{self._uploads} uploads are being read. Try again in a second.", retry_after=1)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def lane_of(self, num_cells: int) -> Lane:
        """Files go to the bulk lane, what a person waits for to the online one."""
        return "bulk" if num_cells > self.settings.bulk_cells else "online"

    # --- life

    def start(self) -> None:
        """Load the model in the background, so that signals and probes are answered meanwhile."""
        self._loading = asyncio.create_task(self._load(), name="load")

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            loaded = self._loaded = await self._open()
        except Exception as error:  # whatever it was: the service stays up, not ready, and says why
            self.state = State.FAILED
            self.failure = " ".join(str(error).split()) or type(error).__name__
            log.error("the model could not be loaded: %s", self.failure)
        else:
            bundle, device = loaded.bundle, loaded.session.info.device
            self.metrics.model_loaded(bundle.name, bundle.version, loaded.session.info)
            if self.state is State.STARTING:
                self.state = State.READY
            seconds = time.monotonic() - started
            log.info("%s %s is ready on %s after %.1f s", bundle.name, bundle.version, device, seconds)
        finally:
            self.settled.set()

    async def _open(self) -> _Loaded:
        bundle, session = await asyncio.to_thread(self._open_model)
        parsers = ParserPool(
            bundle.path / "genes.parquet",
            processes=self.settings.parser_processes,
            seconds=self.settings.parse_seconds,
            directory=self.settings.spool_dir,
        )
        await parsers.start()
        supervisor = Supervisor(
            lambda: Worker(session, self.transport, self.metrics, batch_rows=self.settings.batch_cells)
        )
        supervisor.start()
        jobs = self._open_jobs()
        return _Loaded(bundle, session, parsers, supervisor, jobs)

    def _open_jobs(self) -> JobRunner:
        from app.jobs.runner import JobRunner

        keep_seconds = self.settings.job_hours * 3600
        try:
            directory = self.settings.results_dir or self.settings.spool_dir / "scpalm-jobs"
            jobs = JobRunner(self, directory, keep_seconds=keep_seconds)
        except JobStorageError:
            if self.settings.results_dir is not None:
                raise
            # Another service uses the default folder: ours will not survive a restart, which nobody asked for.
            directory = Path(tempfile.mkdtemp(prefix="scpalm-jobs-", dir=self.settings.spool_dir))
            jobs = JobRunner(self, directory, keep_seconds=keep_seconds)
        self.metrics.watch_jobs(jobs.ledger.counts)
        jobs.start()
        return jobs

    def _open_model(self) -> tuple[Bundle, Session]:
        bundle = Bundle.load(self.settings.bundle)
        session = self._open_session(bundle, self.settings)
        session.warm_up()
        return bundle, session

    def drain(self) -> None:
        """Turn away new requests; those under way are finished."""
        if self.state is not State.DRAINING:
            log.info("draining")
            self.state = State.DRAINING

    async def close(self) -> None:
        """Finish what is queued, then end threads and processes."""
        self.drain()
        if self._loading is not None:
            await self._loading
        if self._loaded is not None:
            await self._loaded.jobs.close()
        self.transport.close()
        if self._loaded is None:
            return
        while not self.transport.idle:
            await asyncio.sleep(0.02)
        await self._loaded.supervisor.stop()
        await asyncio.to_thread(self._loaded.parsers.close)
