"""The service in one process: its models, its jobs and its lifecycle (starting, ready, draining, failed)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from enum import Enum
from weakref import WeakValueDictionary

from scpalm.app.background import TaskSupervisor, cancel_until_done
from scpalm.app.errors import DrainingError, NotReadyError, StorageFullError
from scpalm.app.jobs.home import JobHome, open_home, uploads_folder
from scpalm.app.jobs.ledger.ledger import LedgerVersionError
from scpalm.app.jobs.runner import JobOptions, JobRunner
from scpalm.app.queue.registry import open_transport, transport_kind
from scpalm.app.queue.transport import LANES
from scpalm.app.serving.limits import BodyLimits
from scpalm.app.serving.model import ServedModel
from scpalm.app.serving.models import Models
from scpalm.app.serving.opener import ModelOpener, OpenSession, ParserSpace, Role, open_default_session
from scpalm.app.serving.upload_slots import UploadSlots
from scpalm.app.settings import Settings
from scpalm.app.storage.memory_budget import MemoryBudget, request_bytes
from scpalm.app.storage.memory_limit import memory_limit
from scpalm.app.storage.process_folder import ProcessFolder
from scpalm.app.telemetry.metrics import LaneLoad, Metrics
from scpalm.app.telemetry.metrics_page import MetricsPage
from scpalm.app.telemetry.tracing import Tracing
from scpalm.model.bundle import Bundle

log = logging.getLogger("scpalm.service")

_OPEN_AGAIN_SECONDS = 0.5


class State(Enum):
    """Lifecycle state of a service."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Service:
    """Owns the models, the jobs and the metrics of one process. `start` loads the models in the background.

    With a shared queue each process has one role: it accepts requests, or (``worker=True``) it computes.

    Attributes:
        settled: set once the models are loaded, or could not be loaded.
        draining: set once the service stops.
        answer_locks: one for each result of a job that is being encoded, by job and media type.
        memory: budget of the memory that requests take.
        upload_slots: hold one while a body is received and parsed.
        aborted: it stops at once, without finishing requests.
        requests: tasks of the requests in flight.

    Raises:
        QueueError, SpoolError: a URL in the settings cannot be used.
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
        self._folder = ProcessFolder(settings.spool_dir)
        self.limits = BodyLimits(
            settings.max_body_bytes,
            settings.body_idle_seconds,
            self._folder.path,
            settings.body_min_bytes_per_second,
            settings.body_seconds,
        )
        self.metrics = metrics
        self.metrics_page = MetricsPage(metrics.registry)
        self.tracing = tracing
        in_process = transport_kind(settings.redis_url).in_process
        self.role = Role.ALL if in_process else Role.WORK if worker else Role.REQUESTS
        self.state = State.STARTING
        self.failure = ""
        self.tasks = TaskSupervisor(metrics.task_failed)
        self.memory = MemoryBudget(request_bytes(settings.max_memory_bytes or memory_limit()))
        metrics.watch_memory(self.memory)
        space = ParserSpace(self._folder.path, (uploads_folder(settings),), self.memory)
        self._opener = ModelOpener(settings, metrics, open_session, self.role, self.tasks, space)
        open_transport(self._opener.queue_options())  # validate the URLs now, not when a model loads
        self.models = Models(settings, metrics, self._open_model, self.tasks, self._folder.path)
        metrics.watch_queue(self.queue_load)
        self._jobs: JobRunner | None = None
        self._not_ready_reason = "The model is loading. Try again in a moment."
        self.upload_slots = UploadSlots(settings.max_uploads, settings.upload_share)
        self.answer_locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._loading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping_jobs: asyncio.Task[None] | None = None
        self.settled = asyncio.Event()
        self.draining = asyncio.Event()
        self.aborted = False
        self.requests: set[asyncio.Task[None]] = set()

    # --- models and jobs

    def model(self, name: str | None = None, version: str = "") -> ServedModel:
        """The named model, or the default one. Raises UnknownModelError, and NotReadyError before models are loaded."""
        if not self.settled.is_set() or self.state is State.FAILED:
            raise self._not_ready()
        return self.models.get(name, version)

    @property
    def jobs(self) -> JobRunner:
        """The job runner. Raises NotReadyError before the models are loaded."""
        if self._jobs is None:
            raise self._not_ready()
        return self._jobs

    def _not_ready(self) -> NotReadyError:
        if self.state is State.FAILED:
            return NotReadyError(f"The model could not be loaded: {self.failure}")
        return NotReadyError(self._not_ready_reason, retry_after=1)

    # --- health

    def ready_model(self, name: str | None = None, version: str = "") -> ServedModel:
        """A model that can accept a request now. Raises DrainingError and the errors of `model` and its `check`."""
        if self.state is State.DRAINING:
            raise DrainingError("The service accepts no new work. Send the request to another replica.")
        model = self.model(name, version)
        model.check()
        return model

    def check_ready(self) -> ServedModel:
        """`ready_model`, for health checks. Raises NotReadyError, too, while a background task fails or waits."""
        model = self.ready_model()
        if faults := self.tasks.faults:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(faults.items()))
            raise NotReadyError(f"Background tasks cannot work, and try again by themselves. {reasons}", retry_after=5)
        return model

    def queue_load(self) -> list[LaneLoad]:
        """Unfinished rows in each lane, summed over all models, and the age of the oldest."""
        depths = [model.transport.depth() for model in self.models.all]
        return [
            LaneLoad(
                lane,
                sum(depth.rows[lane] for depth in depths),
                max((depth.oldest_seconds[lane] for depth in depths), default=0.0),
            )
            for lane in LANES
        ]

    def live(self) -> bool:
        """Whether every device loop has made progress recently. True while no model is loaded."""
        return all(model.alive() for model in self.models.all)

    # --- lifecycle

    def start(self) -> None:
        """Load the models in the background, so that signals and health checks are handled meanwhile."""
        self._loading = asyncio.create_task(self._load(), name="load")

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            await asyncio.to_thread(self._open_folders)
            await self.models.load()
            if self.role is not Role.WORK:
                self._jobs = await self._open_jobs()
        except Exception as error:  # any failure: the process stays up, reports "not ready" and gives the reason
            self.state = State.FAILED
            self.failure = " ".join(str(error).split()) or type(error).__name__
            log.error("the model could not be loaded: %s", self.failure)
        else:
            # Models live as long as the process. Keep the garbage collector from scanning them during requests.
            gc.collect()
            gc.freeze()
            if self.state is State.STARTING:
                self.state = State.READY
            self._watching = self.tasks.start("models", self.models.watch)
            log.info("%s ready after %.1f s", ", ".join(map(str, self.models.all)), time.monotonic() - started)
        finally:
            self.settled.set()

    def _open_folders(self) -> None:
        self._folder.open()
        # Parsers can read only folders that exist when they start. A disk that is away is reported by the jobs.
        with contextlib.suppress(OSError):
            uploads_folder(self.settings).mkdir(parents=True, exist_ok=True)

    async def _open_model(self, bundle: Bundle) -> ServedModel:
        return await self._opener.open(bundle, self._set_not_ready_reason)

    def _set_not_ready_reason(self, reason: str) -> None:
        self._not_ready_reason = reason

    async def _open_jobs(self) -> JobRunner | None:
        home = await self._open_home()
        if home is None:
            return None
        options = JobOptions(self.settings.job_hours * 3600, self._folder.path)
        jobs = JobRunner(self.models, home, options, self.settled, self.tasks)
        self.metrics.watch_jobs(lambda: jobs.housekeeping.counts.items())
        jobs.start()
        return jobs

    async def _open_home(self) -> JobHome | None:
        """The storage of jobs, once it is available; None if the service is stopped before."""
        while not self.draining.is_set():
            try:
                return await asyncio.to_thread(open_home, self.settings, self._folder.path)
            except LedgerVersionError:
                raise
            except (NotReadyError, StorageFullError) as error:
                if self._not_ready_reason != error.detail:
                    log.warning("jobs cannot be opened yet: %s", error.detail)
                self._not_ready_reason = error.detail
                await asyncio.sleep(_OPEN_AGAIN_SECONDS)
        return None

    def drain(self) -> None:
        """Refuse new requests and run no more jobs. Requests in flight are finished."""
        if self.state is State.DRAINING:
            return
        log.info("draining")
        self.state = State.DRAINING
        self.draining.set()
        if self._jobs is not None:
            self._stopping_jobs = asyncio.create_task(self._jobs.drain(), name="stop jobs")

    def abort(self) -> int:
        """Stop at once: requests in flight are answered with 503. Returns how many there were."""
        self.drain()
        self.aborted = True
        for request in self.requests:
            request.cancel()
        return len(self.requests)

    async def close(self) -> None:
        """Finish queued work, unless the service was aborted. Then stop all threads and processes."""
        self.drain()
        if self._loading is not None:
            if not self.settled.is_set() and self.role is not Role.ALL:
                self._loading.cancel()  # it may still be waiting for Redis
            await asyncio.gather(self._loading, return_exceptions=True)
        await cancel_until_done([task for task in (self._watching,) if task is not None])
        if self._stopping_jobs is not None:
            await asyncio.gather(self._stopping_jobs, return_exceptions=True)
        if self._jobs is not None:
            await self._jobs.close()
        await self.models.close(at_once=self.aborted)
        await asyncio.to_thread(self._folder.close)
