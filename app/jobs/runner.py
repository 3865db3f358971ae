"""Runs jobs, one after the other, on the bulk lane: what is committed stays done, whatever happens to the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from scpalm.app.background import end
from scpalm.app.errors import (
    DrainingError,
    JobStorageError,
    NotReadyError,
    QueueFullError,
    ServiceError,
    StorageFullError,
)
from scpalm.app.http.body import Body
from scpalm.app.jobs.chunk import remove_files, results_of, tasks_of, upload_of
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.ledger.ledger import OPEN, STATES, Job, State
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.places import Place
from scpalm.app.jobs.store import CHUNK_ROWS, JobStore
from scpalm.app.parsing.pool import Opened
from scpalm.app.serving.model import Model
from scpalm.app.serving.service import Service
from scpalm.app.storage.scratch import made, scratch_folder
from scpalm.app.storage.spool import SpoolError
from scpalm.app.tasks.task import Task
from scpalm.model.errors import InputError
from scpalm.model.genes.prepare import Prepared

log = logging.getLogger("scpalm.jobs")

T = TypeVar("T")

_EXPIRY_CHECK_SECONDS = 600.0
_COUNT_SECONDS = 2.0
# How often the ledger is looked at: other processes write to it, too.
_LOOK_SECONDS = 0.5
# A ledger, spool or queue that is away comes back; a job has time.
_AWAY = (NotReadyError, StorageFullError, SpoolError, QueueFullError)


class _LostError(Exception):
    """The job was cancelled, or another process has it."""


class JobRunner:
    """Accepts jobs and runs them. `start` needs a running event loop.

    Attributes:
        counts: how many jobs are in each state, as last seen.
    """

    def __init__(self, service: Service, home: JobHome, *, keep_seconds: float) -> None:
        self._service = service
        self._home = home
        self._keep_seconds = keep_seconds
        self.ledger = home.ledger
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)
        self._wake = asyncio.Event()
        self._holds: dict[str, ExitStack] = {}  # of the models of jobs that wait, so that these outlive a successor
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take up what an earlier process left, and whatever comes."""
        loops = {"jobs": self._run_all, "jobs-expiry": self._expire, "jobs-counts": self._count}
        self._loops = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]
        self._wake.set()

    async def close(self) -> None:
        """Stop; the job that runs waits for the next start, or for another process."""
        await end(self._loops)
        await self._home.close()

    def place_of(self, job: Job) -> Place:
        """Where the files of a job are."""
        return self._home.place_of(job.id)

    async def accept(self, owner: str, body: Body, manifest: Manifest, key: str | None, model: Model) -> Job:
        """A job for this body; the same cells, options and model, or the same key, give the same job."""
        fingerprint = await asyncio.to_thread(manifest.fingerprint, body)
        job_id = uuid4().hex
        place = self._home.place_of(job_id)
        # The body first: whoever takes the job finds it whole.
        if body.path is None:
            await asyncio.to_thread(place.write, BODY_FILE, body.data or b"")
        else:
            await asyncio.to_thread(place.take_in, BODY_FILE, body.path)
        try:
            job = await self.ledger.add(job_id, owner, fingerprint, key, manifest.as_json(), manifest.model[2])
        except BaseException:
            await asyncio.to_thread(place.remove)
            raise
        if job.id == job_id:
            hold = self._holds[job.id] = ExitStack()
            hold.enter_context(model.held())
        else:
            await asyncio.to_thread(place.remove)
        self._wake.set()
        return job

    async def cancel(self, job: Job) -> bool:
        """End an open job and forget its files; a closed one is left as it is (False)."""
        if not await self.ledger.cancel(job.id):
            return False
        if self._running is not None and self._running[0] == job.id:
            await end([self._running[1]])
        self._release(job.id)
        await asyncio.to_thread(self.place_of(job).remove)
        return True

    def _release(self, job_id: str) -> None:
        if (hold := self._holds.pop(job_id, None)) is not None:
            hold.close()

    # --- running

    async def _run_all(self) -> None:
        await self._service.settled.wait()
        while True:
            self._wake.clear()
            job = await self._patiently(lambda: self.ledger.take(self._models()))
            if job is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
                continue
            task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
            keeping = asyncio.create_task(self._keep(job, task), name=f"lease-{job.id}")
            self._running = (job.id, task)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():  # this loop ends, not the job alone
                    await end([task])
                    with contextlib.suppress(*_AWAY):
                        await self.ledger.end(job, "queued")
                    raise
                await self._tidy(job)
            finally:
                keeping.cancel()
                self._running = None
                self._release(job.id)

    async def _tidy(self, job: Job) -> None:
        """What was written after another process had cancelled the job, and removed its files."""
        now = await self._patiently(lambda: self.ledger.get(job.id))
        if now is None or now.state == "cancelled":
            await asyncio.to_thread(self.place_of(job).remove)

    def _models(self) -> list[str]:
        return [checksum for _, _, checksum in self._service.models.identities]

    async def _keep(self, job: Job, task: asyncio.Task[None]) -> None:
        while True:
            await asyncio.sleep(self._home.lease_seconds / 3)
            if not await self._patiently(lambda: self.ledger.keep(job)):
                log.info("job %s is no longer ours: cancelled, or taken over", job.id)
                await end([task])
                return

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        state: State = "succeeded"
        error: str | None = None
        try:
            await self._compute(job)
        except _LostError:
            return
        except DrainingError:
            state = "queued"
        except (ServiceError, InputError) as fault:
            state, error = "failed", str(fault)
        except Exception as fault:
            log.exception("job %s failed", job.id)
            state, error = "failed", f"An unexpected fault ({type(fault).__name__}); the service's log has it."
        ours = await self._patiently(lambda: self.ledger.end(job, state, error))
        if ours and state == "succeeded":
            log.info("job %s is done after %.1f s", job.id, time.monotonic() - started)

    async def _compute(self, job: Job) -> None:
        manifest = Manifest.from_json(job.manifest)
        model = self._service.models.exactly(manifest.model)
        if model is None:
            name, version, _ = manifest.model
            raise JobStorageError(f"The model {name} {version} that this job was sent to is gone. Send it again.")
        place = self.place_of(job)
        with model.held(), scratch_folder(self._service.settings.spool_dir) as folder, ExitStack() as files:
            scratch = made(folder)
            body = await self._patiently(
                lambda: asyncio.to_thread(files.enter_context, place.local(BODY_FILE, scratch))
            )
            await self._compute_with(model, job, manifest, body, scratch)

    async def _compute_with(self, model: Model, job: Job, manifest: Manifest, body: Path, scratch: Path) -> None:
        store = JobStore(self.place_of(job))
        done = await self._patiently(lambda: self.ledger.chunks(job))
        async with aclosing(model.parsers.parse(upload_of(manifest, body, self._service))) as parts:
            opened = await anext(parts)
            assert isinstance(opened, Opened)
            tasks = await asyncio.to_thread(tasks_of, manifest, model, opened)
            await self._patiently(lambda: asyncio.to_thread(store.open, tasks, opened))
            await self._patiently(lambda: self.ledger.set_rows(job, opened.num_cells))
            number, waiting = 0, list[Prepared]()
            async for part in parts:
                assert isinstance(part, Prepared)
                waiting.append(part)
                rows = sum(len(prepared.rows) for prepared in waiting)
                if rows >= CHUNK_ROWS or number * CHUNK_ROWS + rows == opened.num_cells:
                    if number not in done:
                        await self._chunk(model, tasks, waiting, (job, number, rows), store, scratch)
                    number, waiting = number + 1, []

    async def _chunk(
        self,
        model: Model,
        tasks: tuple[Task, ...],
        parts: list[Prepared],
        chunk: tuple[Job, int, int],
        store: JobStore,
        scratch: Path,
    ) -> None:
        job, number, rows = chunk
        results = await self._patiently(lambda: results_of(model, tasks, parts, number * CHUNK_ROWS, rows, scratch))
        await self._patiently(
            lambda: asyncio.to_thread(store.put, number, results.values, results.cells, results.input)
        )
        remove_files(results)
        if not await self._patiently(lambda: self.ledger.commit_chunk(job, number, rows)):
            # Or it was committed, and the answer got lost.
            if number not in await self._patiently(lambda: self.ledger.chunks(job)):
                raise _LostError
            if not await self._patiently(lambda: self.ledger.keep(job)):
                raise _LostError

    async def _patiently(self, command: Callable[[], Awaitable[T]]) -> T:
        """The result of a command; tried again while what it needs is away."""
        told = False
        while True:
            try:
                return await command()
            except _AWAY as error:
                if not told:
                    log.warning("jobs wait: %s", error.detail)
                told = True
                await asyncio.sleep(min(5.0, error.retry_after or 1.0) if isinstance(error, QueueFullError) else 0.5)

    # --- beside

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                self.counts = await self.ledger.counts()
                for job_id in list(self._holds):  # ended by another process, or `scpalm jobs`
                    job = await self.ledger.get(job_id)
                    if job is None or job.state not in OPEN:
                        self._release(job_id)
            await asyncio.sleep(_COUNT_SECONDS)

    async def _expire(self) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                for job_id in await self.ledger.expired(time.time() - self._keep_seconds):
                    await asyncio.to_thread(self._home.place_of(job_id).remove)
                    await self.ledger.forget(job_id)
            await asyncio.sleep(_EXPIRY_CHECK_SECONDS)
