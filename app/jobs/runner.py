"""Run jobs one at a time on the bulk lane. Committed chunks are kept if the process dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from scpalm.app.background import cancel_until_done
from scpalm.app.errors import DrainingError, JobStorageError, ServiceError
from scpalm.app.jobs.attempt import Attempt, LostJobError
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.ledger.ledger import OPEN, STATES, Job, State
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.retry import UNAVAILABLE, retry_while_unavailable
from scpalm.app.queue.transport import RENEWALS_PER_LEASE
from scpalm.app.serving.model import ServedModel
from scpalm.app.serving.models import Models
from scpalm.model.errors import InputError, MissingPartError

log = logging.getLogger("scpalm.jobs")

_EXPIRY_CHECK_SECONDS = 600.0
_COUNT_SECONDS = 2.0
# How often to poll the ledger, which other processes write to as well.
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class JobOptions:
    """Options of the runner.

    Attributes:
        keep_seconds: how long ended jobs and their results are kept.
        spool_dir: folder for temporary files.
    """

    keep_seconds: float
    spool_dir: Path


class JobRunner:
    """Accepts jobs and runs them. `start` needs a running event loop.

    Args:
        models: the models of this process.
        home: storage of the jobs.
        options: options of the runner.
        ready: event that is set once the models are loaded.

    Attributes:
        ledger: the ledger of all jobs.
        counts: number of jobs in each state, as last read from the ledger.
    """

    def __init__(self, models: Models, home: JobHome, options: JobOptions, ready: asyncio.Event) -> None:
        self._models, self._home, self._options, self._ready = models, home, options, ready
        self.ledger = home.ledger
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)
        self._wake = asyncio.Event()
        self._holds: dict[str, ExitStack] = {}  # keep the models of waiting jobs open after they are replaced
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start running jobs, including those that an earlier process left."""
        loops = {"jobs": self._run_all, "jobs-expiry": self._expire, "jobs-counts": self._count}
        self._loops = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]
        self._wake.set()

    async def close(self) -> None:
        """Stop. The running job is queued again, for the next start or for another process."""
        await cancel_until_done(self._loops)
        await self._home.close()

    def files_of(self, job: Job) -> JobFiles:
        """The files of a job."""
        return self._home.files_of(job.id)

    async def accept(
        self, owner: str, body: bytes | Path, manifest: Manifest, key: str | None, model: ServedModel
    ) -> Job:
        """Accept a job for this body. The same cells, options and model, or the same key, return the same job."""
        fingerprint = await asyncio.to_thread(manifest.fingerprint, body)
        job_id = uuid4().hex
        files = self._home.files_of(job_id)
        # Store the body before the ledger lists the job, because any process may take the job at once.
        if isinstance(body, Path):
            await asyncio.to_thread(files.copy_in, BODY_FILE, body)
        else:
            await asyncio.to_thread(files.write, BODY_FILE, body)
        try:
            job = await self.ledger.add(job_id, owner, fingerprint, key, manifest.as_json(), manifest.model[2])
        except BaseException:
            await asyncio.to_thread(files.remove)
            raise
        if job.id == job_id:
            hold = self._holds[job.id] = ExitStack()
            hold.enter_context(model.held())
        else:
            await asyncio.to_thread(files.remove)
        self._wake.set()
        return job

    async def cancel(self, job: Job) -> bool:
        """Cancel an open job and remove its files. Returns False if the job has already ended."""
        if not await self.ledger.cancel(job.id):
            return False
        if self._running is not None and self._running[0] == job.id:
            await cancel_until_done([self._running[1]])
        self._release(job.id)
        await asyncio.to_thread(self.files_of(job).remove)
        return True

    def _release(self, job_id: str) -> None:
        if (hold := self._holds.pop(job_id, None)) is not None:
            hold.close()

    # --- running

    async def _run_all(self) -> None:
        await self._ready.wait()
        while True:
            self._wake.clear()
            job = await retry_while_unavailable(lambda: self.ledger.take(self._checksums()))
            if job is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
                continue
            await self._run_one(job)

    async def _run_one(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
        renewal = asyncio.create_task(self._renew(job, task), name=f"lease-{job.id}")
        self._running = (job.id, task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # the runner itself is being stopped
                await cancel_until_done([task])
                with contextlib.suppress(*UNAVAILABLE):
                    await self.ledger.end(job, "queued")
                raise
            await self._remove_if_cancelled(job)
        finally:
            renewal.cancel()
            self._running = None
            self._release(job.id)

    async def _remove_if_cancelled(self, job: Job) -> None:
        """Remove files that were written after another process cancelled the job and removed its files."""
        now = await retry_while_unavailable(lambda: self.ledger.get(job.id))
        if now is None or now.state == "cancelled":
            await asyncio.to_thread(self.files_of(job).remove)

    def _checksums(self) -> list[str]:
        return [checksum for _, _, checksum in self._models.identities]

    async def _renew(self, job: Job, task: asyncio.Task[None]) -> None:
        while True:
            await asyncio.sleep(self._home.lease_seconds / RENEWALS_PER_LEASE)
            if not await retry_while_unavailable(lambda: self.ledger.renew(job)):
                log.info("job %s was cancelled, or another process took it over", job.id)
                await cancel_until_done([task])
                return

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        state: State = "succeeded"
        error: str | None = None
        try:
            await self._attempt(job).run()
        except LostJobError:
            return
        except DrainingError:
            state = "queued"
        except (ServiceError, InputError, MissingPartError) as fault:
            state, error = "failed", str(fault)
        except Exception as fault:
            log.exception("job %s failed", job.id)
            state, error = "failed", f"Unexpected error ({type(fault).__name__}). See the log of the service."
        was_holder = await retry_while_unavailable(lambda: self.ledger.end(job, state, error))
        if was_holder and state == "succeeded":
            log.info("job %s succeeded after %.1f s", job.id, time.monotonic() - started)

    def _attempt(self, job: Job) -> Attempt:
        manifest = Manifest.from_json(job.manifest)
        model = self._models.exactly(manifest.model)
        if model is None:
            name, version, _ = manifest.model
            raise JobStorageError(f"The model of this job, {name} {version}, is no longer served. Send the job again.")
        return Attempt(job, manifest, model, self.ledger, self.files_of(job), self._options.spool_dir)

    # --- housekeeping

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(*UNAVAILABLE):
                self.counts = await self.ledger.counts()
                for job_id in list(self._holds):  # another process or `scpalm jobs` may have ended the job
                    job = await self.ledger.get(job_id)
                    if job is None or job.state not in OPEN:
                        self._release(job_id)
            await asyncio.sleep(_COUNT_SECONDS)

    async def _expire(self) -> None:
        while True:
            with contextlib.suppress(*UNAVAILABLE):
                for job_id in await self.ledger.expired(time.time() - self._options.keep_seconds):
                    await asyncio.to_thread(self._home.files_of(job_id).remove)
                    await self.ledger.forget(job_id)
            await asyncio.sleep(_EXPIRY_CHECK_SECONDS)
