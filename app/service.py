"""The parts of one running process, and the states it goes through: starting, ready, draining, or failed."""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import DrainingError, JobStorageError, NotReadyError, QueueFullError
from app.parsing import ParserPool
from app.runtime import open_runtime
from app.settings import Settings
from app.supervisor import Supervisor
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import Tracing
from app.transport import Lane, Transport
from app.transport.choice import connect, devices_of, disconnect, info_of, open_transport, start_leases
from app.worker import Worker
from model.bundle import Bundle
from model.sessions import Session, SessionInfo

if TYPE_CHECKING:
    from app.jobs.runner import JobRunner

log = logging.getLogger("scpalm.service")


class State(Enum):
    """Where a service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Role(Enum):
    """What a process does: everything, or with a queue in Redis one of two halves."""

    ALL = "all"
    REQUESTS = "requests"
    WORK = "work"


@dataclass(frozen=True)
class _Loaded:
    bundle: Bundle
    info: SessionInfo
    parsers: ParserPool
    supervisor: Supervisor | None
    jobs: JobRunner | None


OpenSession = Callable[[Bundle, Settings], Session]


def open_default_session(bundle: Bundle, settings: Settings) -> Session:
    return open_runtime(bundle, device=settings.device, threads=settings.threads)


class Service:
    """Bundle, session, transport, worker and parsers of one app. Made at once; `start` loads the model beside it.

    With a queue in Redis a process has one half: requests, without a session, or with ``worker`` the work.

    Raises QueueError, SpoolError for addresses that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        open_session: OpenSession = open_default_session,
        tracing: Tracing | None = None,
        *,
        worker: bool = False,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.tracing = tracing
        self.role = Role.ALL if not settings.redis_url else Role.WORK if worker else Role.REQUESTS
        self.state = State.STARTING
        self.failure = ""
        self.transport: Transport = open_transport(settings, metrics)
        metrics.watch_queue(self.transport.depth)
        self._open_session = open_session
        self._loaded: _Loaded | None = None
        self._waits_for = "The model is being loaded. Try again in a moment."
        self._uploads = 0
        self._loading: asyncio.Task[None] | None = None
        self.settled = asyncio.Event()

    # --- what is loaded

    @property
    def bundle(self) -> Bundle:
        """Raises NotReadyError until the model is loaded, as do the next two."""
        return self._need().bundle

    @property
    def info(self) -> SessionInfo:
        """What the model's session is; where workers elsewhere have it, their devices as last seen."""
        info = self._need().info
        return info if self.role is not Role.REQUESTS else replace(info, device=devices_of(self.transport))

    @property
    def jobs(self) -> JobRunner:
        jobs = self._need().jobs
        assert jobs is not None
        return jobs

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
        return NotReadyError(self._waits_for, retry_after=1)

    # --- health

    def check_ready(self) -> None:
        """Raises NotReadyError, DrainingError or QueueFullError where a request should not start."""
        if self.state is State.DRAINING:
            raise DrainingError("The service takes no new work. Send the request to another replica.")
        if self.state is not State.READY:
            raise self._not_ready()
        fault = self.transport.fault()
        if fault is not None:
            raise fault
        depth = self.transport.depth()
        if depth.full:
            raise QueueFullError(
                f"{sum(depth.rows.values())} cells are waiting. Try again in {depth.retry_after} s.",
                retry_after=depth.retry_after,
            )

    def live(self) -> bool:
        """The device loop moved lately; true while there is none yet."""
        supervisor = self._loaded.supervisor if self._loaded is not None else None
        return supervisor is None or supervisor.alive(self.settings.stall_seconds)

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
            bundle, device = loaded.bundle, loaded.info.device
            self.metrics.model_loaded(bundle.name, bundle.version, loaded.info)
            # What was loaded stays: looking through it for garbage again and again would hold up requests.
            gc.collect()
            gc.freeze()
            if self.state is State.STARTING:
                self.state = State.READY
            seconds = time.monotonic() - started
            log.info("%s %s is ready on %s after %.1f s", bundle.name, bundle.version, device, seconds)
        finally:
            self.settled.set()

    async def _open(self) -> _Loaded:
        bundle = await asyncio.to_thread(Bundle.load, self.settings.bundle)
        session = None if self.role is Role.REQUESTS else await asyncio.to_thread(self._open_session_of, bundle)
        info = session.info if session is not None else info_of(bundle)
        parsers = ParserPool(
            bundle.path / "genes.parquet",
            processes=self.settings.parser_processes,
            seconds=self.settings.parse_seconds,
            directory=self.settings.spool_dir,
        )
        await parsers.start()
        await connect(self.transport, bundle, self._wait_for)
        supervisor = None if session is None else self._start_worker(session)
        jobs = None if self.role is Role.WORK else self._open_jobs()
        return _Loaded(bundle, info, parsers, supervisor, jobs)

    def _wait_for(self, what: str) -> None:
        self._waits_for = what

    def _open_session_of(self, bundle: Bundle) -> Session:
        session = self._open_session(bundle, self.settings)
        session.warm_up()
        return session

    def _start_worker(self, session: Session) -> Supervisor:
        start_leases(self.transport, session.info)
        supervisor = Supervisor(
            lambda: Worker(session, self.transport, self.metrics, batch_rows=self.settings.batch_cells)
        )
        supervisor.start()
        return supervisor

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

    def drain(self) -> None:
        """Turn away new requests; those under way are finished."""
        if self.state is not State.DRAINING:
            log.info("draining")
            self.state = State.DRAINING

    async def close(self) -> None:
        """Finish what is queued, then end threads and processes."""
        self.drain()
        if self._loading is not None:
            if not self.settled.is_set() and self.role is not Role.ALL:
                self._loading.cancel()  # it may wait for Redis
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._loaded is not None and self._loaded.jobs is not None:
            await self._loaded.jobs.close()
        self.transport.close()
        if self._loaded is not None:
            ends = time.monotonic() + self.settings.stop_seconds
            while not self.transport.idle and time.monotonic() < ends:
                await asyncio.sleep(0.02)
            if self._loaded.supervisor is not None:
                await self._loaded.supervisor.stop()
            await asyncio.to_thread(self._loaded.parsers.close)
        await disconnect(self.transport)
