"""Accept jobs and run them one at a time on the bulk lane. Committed chunks are kept if the process dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from scpalm.app.background import Beat, TaskSupervisor, cancel_until_done, completed
from scpalm.app.errors import DrainingError, InterruptedParserError, JobStorageError, NotReadyError, ServiceError
from scpalm.app.jobs.attempt import Attempt, LostJobError
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.housekeeping import Housekeeping, remove
from scpalm.app.jobs.ledger.ledger import OPEN, Job, State, Submission
from scpalm.app.jobs.manifest import BODY_FILE, LABELLED_BODY_FILE, Manifest
from scpalm.app.jobs.retry import TASK_NAME, UNAVAILABLE, Retry
from scpalm.app.queue.transport import RENEWALS_PER_LEASE
from scpalm.app.serving.model import ServedModel
from scpalm.app.serving.models import Models
from scpalm.model.errors import InputError, MissingPartError

log = logging.getLogger("scpalm.jobs")

# How often to poll the ledger, which other processes write to as well.
_POLL_SECONDS = 0.5
# A job that was interrupted from outside goes back to the queue, at most this many times.
_MAX_ATTEMPTS = 20


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
        tasks: supervisor of the background tasks.

    Attributes:
        ledger: the ledger of all jobs.
        housekeeping: counts jobs and removes old ones.
    """

    def __init__(
        self, models: Models, home: JobHome, options: JobOptions, ready: asyncio.Event, tasks: TaskSupervisor
    ) -> None:
        self._models, self._home, self._options, self._ready, self._tasks = models, home, options, ready, tasks
        self._retry = Retry(tasks)
        self._accepting: set[str] = set()
        self.ledger = home.ledger
        self.housekeeping = Housekeeping(home, options.keep_seconds, self._accepting)
        self._wake = asyncio.Event()
        self._holds: dict[str, ExitStack] = {}  # keep the models of waiting jobs open after they are replaced
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._attempted: Attempt | None = None
        self._unfinished: list[Job] = []  # listed as running, but no process runs them
        self._intake: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start running jobs, including those that an earlier process left."""
        self._intake = self._tasks.start(TASK_NAME, self._run_all)
        self._loops = [
            self._tasks.start("jobs-tidy", self.housekeeping.tidy),
            self._tasks.start("jobs-counts", partial(self.housekeeping.count, self._release_ended)),
        ]
        self._wake.set()

    async def drain(self) -> None:
        """Run no more jobs. The running one is queued again, for the next start or for another process."""
        if self._intake is not None:
            await cancel_until_done([self._intake])

    async def close(self) -> None:
        """Stop."""
        await self.drain()
        await cancel_until_done(self._loops)
        await self._home.close()

    def files_of(self, job: Job) -> JobFiles:
        """The files of a job."""
        return self._home.files_of(job.id)

    def share_concluded(self, job_id: str) -> float | None:
        """Finished share of the last stage of a job; None if another process runs it, or none does."""
        attempt = self._attempted
        return attempt.share_concluded if attempt is not None and attempt.job.id == job_id else None

    async def accept(
        self,
        body: bytes | Path,
        submission: Submission,
        manifest: Manifest,
        model: ServedModel,
        labelled: bytes | Path | None = None,
    ) -> tuple[Job, bool]:
        """Accept a job for this body, or return the job that `Ledger.find` finds. Also returns whether it is new.

        ``labelled`` is the file of labelled cells that came with the body.

        Raises IdempotencyError, StorageFullError, JobStorageError, NotReadyError, SpoolError; then nothing is left.
        """
        # A client that leaves now must not leave half a job behind.
        bodies = {BODY_FILE: body, **({} if labelled is None else {LABELLED_BODY_FILE: labelled})}
        return await completed(self._accept(bodies, submission, manifest, model))

    async def _accept(
        self, bodies: Mapping[str, bytes | Path], submission: Submission, manifest: Manifest, model: ServedModel
    ) -> tuple[Job, bool]:
        job_id = uuid4().hex
        files = self._home.files_of(job_id)
        self._accepting.add(job_id)
        try:
            # Store the bodies before the ledger lists the job, because any process may take the job at once.
            for name, body in bodies.items():
                if isinstance(body, Path):
                    await asyncio.to_thread(files.copy_in, name, body)
                else:
                    await asyncio.to_thread(files.write, name, body)
            job = await self.ledger.add(job_id, submission, manifest.as_json(), manifest.model[2])
        except Exception:
            # The ledger may have the job although its reply was lost. If it cannot tell, `Housekeeping` will.
            with contextlib.suppress(*UNAVAILABLE):
                if await self.ledger.get(job_id) is None:
                    await remove(files)
            raise
        finally:
            self._accepting.discard(job_id)
        is_new = job.id == job_id
        if is_new:
            hold = self._holds[job.id] = ExitStack()
            hold.enter_context(model.held())
        else:
            await remove(files)
        self._wake.set()
        return job, is_new

    async def cancel(self, job: Job) -> bool:
        """Cancel an open job and remove its files. Returns False if the job has already ended."""
        if not await self.ledger.cancel(job.id):
            return False
        if self._running is not None and self._running[0] == job.id:
            await cancel_until_done([self._running[1]])
        self._release(job.id)
        await remove(self.files_of(job))
        return True

    async def remove(self, job: Job) -> None:
        """Remove a job that has ended, with its files. Raises NotReadyError if they cannot be removed now."""
        self._release(job.id)
        if not await remove(self.files_of(job)):
            raise NotReadyError("The files of this job cannot be removed now. Try again later.", retry_after=5)
        await self.ledger.forget(job.id)

    def _release(self, job_id: str) -> None:
        if (hold := self._holds.pop(job_id, None)) is not None:
            hold.close()

    async def _release_ended(self) -> None:
        for job_id in list(self._holds):  # another process or `scpalm jobs` may have ended the job
            job = await self.ledger.get(job_id)
            if job is None or job.state not in OPEN:
                self._release(job_id)

    # --- running

    async def _run_all(self, beat: Beat) -> None:
        await self._ready.wait()
        while True:
            self._wake.clear()
            if not await self.run_next(beat):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)

    async def run_next(self, beat: Beat = lambda: None) -> bool:
        """Take one job and run it. Returns whether there was one; calls ``beat`` once the ledger has answered."""
        await self._put_back_unfinished()
        job = await self._take()
        beat()
        if job is not None:
            await self._run_one(job)
        return job is not None

    async def _take(self) -> Job | None:
        async def take() -> None:
            if (job := await self.ledger.take([checksum for _, _, checksum in self._models.identities])) is not None:
                self._unfinished.append(job)

        try:
            await self._retry(lambda: completed(take()))
        except asyncio.CancelledError:  # the job that was taken meanwhile must not hang
            await completed(self._put_back_now())
            raise
        return self._unfinished.pop() if self._unfinished else None

    async def _put_back_unfinished(self) -> None:
        while self._unfinished:
            await self._retry(lambda: self.ledger.end(self._unfinished[-1], "queued"))
            self._unfinished.pop()

    async def _put_back_now(self) -> None:
        """Queue unfinished jobs again, unless the ledger is away; then the next process finds them."""
        with contextlib.suppress(*UNAVAILABLE):
            while self._unfinished:
                await self.ledger.end(self._unfinished.pop(), "queued")

    async def _run_one(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
        renewal = self._tasks.start("jobs-lease", partial(self._renew, job, task))
        self._running = (job.id, task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # the runner itself is being stopped
                await completed(self._stop(job, task, renewal))
                raise
            await self._remove_if_cancelled(job)
        except Exception:
            self._unfinished.append(job)
            raise
        finally:
            renewal.cancel()
            self._running = None
            self._release(job.id)

    async def _stop(self, job: Job, *tasks: asyncio.Task[None]) -> None:
        await cancel_until_done(tasks)
        self._unfinished.append(job)
        await self._put_back_now()

    async def _remove_if_cancelled(self, job: Job) -> None:
        """Remove files that were written after another process cancelled the job and removed its files."""
        now = await self._retry(lambda: self.ledger.get(job.id))
        if now is None or now.state == "cancelled":
            await remove(self.files_of(job))

    async def _renew(self, job: Job, task: asyncio.Task[None], beat: Beat) -> None:
        while True:
            await asyncio.sleep(self._home.lease_seconds / RENEWALS_PER_LEASE)
            if not await self._retry(lambda: self.ledger.renew(job)):
                log.info("job %s was cancelled, or another process took it over", job.id)
                await cancel_until_done([task])
                return
            beat()

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        state: State = "succeeded"
        error: str | None = None
        try:
            self._attempted = self._attempt(job)
            await self._attempted.run()
        except LostJobError:
            return
        except (DrainingError, InterruptedParserError, *UNAVAILABLE) as fault:
            state, error = ("queued", None) if job.attempt < _MAX_ATTEMPTS else ("failed", str(fault))
        except (ServiceError, InputError, MissingPartError) as fault:
            state, error = "failed", str(fault)
        except Exception as fault:
            log.exception("job %s failed", job.id)
            state, error = "failed", f"Unexpected error ({type(fault).__name__}). See the log of the service."
        was_holder = await self._retry(lambda: self.ledger.end(job, state, error))
        if was_holder and state == "succeeded":
            log.info("job %s succeeded after %.1f s", job.id, time.monotonic() - started)

    def _attempt(self, job: Job) -> Attempt:
        manifest = Manifest.from_json(job.manifest)
        model = self._models.exactly(manifest.model)
        if model is None:
            name, version, _ = manifest.model
            raise JobStorageError(f"The model of this job, {name} {version}, is no longer served. Send the job again.")
        spool_dir = self._options.spool_dir
        return Attempt(job, manifest, model, self.ledger, self.files_of(job), self._retry, spool_dir)
