"""Runs jobs, one after the other, on the bulk lane: what is committed stays done, whatever happens to the process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import tempfile
import time
from contextlib import ExitStack, aclosing
from pathlib import Path
from uuid import uuid4

from app.body import Body
from app.computation import Computation, Results
from app.errors import DrainingError, JobStorageError, QueueFullError, ServiceError
from app.jobs.ledger import Job, Ledger
from app.jobs.manifest import Manifest, body_path
from app.jobs.store import CHUNK_ROWS, JobStore
from app.parsing import Opened
from app.served import Model
from app.service import Service
from app.tasks import Task
from app.upload import Upload
from app.values import StoredValues
from model.errors import InputError
from model.prepare import Prepared

log = logging.getLogger("scpalm.jobs")

_EXPIRY_CHECK_SECONDS = 600.0


class JobRunner:
    """Accepts jobs and runs them. `start` needs a running event loop; one process at a time owns a folder.

    Raises JobStorageError where another process holds ``directory`` or it cannot be written to.
    """

    def __init__(self, service: Service, directory: Path, *, keep_seconds: float) -> None:
        self._service = service
        self._directory = directory
        self._keep_seconds = keep_seconds
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobStorageError(
                f"The folder of jobs {directory} cannot be used ({error.strerror}): another service holds it, or it "
                "cannot be written to. Name another with SCPALM_RESULTS_DIR."
            ) from error
        self.ledger = Ledger(directory / "jobs.sqlite")
        self._wake = asyncio.Event()
        self._holds: dict[str, ExitStack] = {}  # of the models of jobs that wait, so that these outlive a successor
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._expiring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take up what an earlier process left, and whatever comes."""
        again = self.ledger.requeue_running()
        if again:
            log.info("%d unfinished jobs are taken up again", again)
        self._loop = asyncio.create_task(self._run_all(), name="jobs")
        self._expiring = asyncio.create_task(self._expire(), name="jobs-expiry")
        self._wake.set()

    async def close(self) -> None:
        """Stop; the job that runs waits for the next start."""
        tasks = [task for task in (self._loop, self._expiring) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.ledger.close()
        self._lock.close()

    def folder(self, job_id: str) -> Path:
        return self._directory / job_id

    async def accept(self, owner: str, body: Body, manifest: Manifest, key: str | None, model: Model) -> Job:
        """A job for this body; the same cells, options and model, or the same key, give the same job."""
        fingerprint = await asyncio.to_thread(manifest.fingerprint, body)
        job_id = uuid4().hex
        folder = self.folder(job_id)
        await asyncio.to_thread(_keep_body, body, folder)
        job = self.ledger.add(job_id, owner, fingerprint, key, manifest.as_json())
        if job.id == job_id:
            hold = self._holds[job.id] = ExitStack()
            hold.enter_context(model.held())
        else:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._wake.set()
        return job

    async def cancel(self, job: Job) -> bool:
        """End an open job and forget its files; a closed one is left as it is (False)."""
        if not self.ledger.end(job, "cancelled"):
            return False
        if self._running is not None and self._running[0] == job.id:
            self._running[1].cancel()
            await asyncio.gather(self._running[1], return_exceptions=True)
        self._release(job)
        await asyncio.to_thread(shutil.rmtree, self.folder(job.id), ignore_errors=True)
        return True

    def _release(self, job: Job) -> None:
        if (hold := self._holds.pop(job.id, None)) is not None:
            hold.close()

    async def _run_all(self) -> None:
        await self._service.settled.wait()
        while True:
            self._wake.clear()
            job = self.ledger.take()
            if job is None:
                await self._wake.wait()
                continue
            task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
            self._running = (job.id, task)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():  # this loop ends, not the job alone
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    self.ledger.end(job, "queued")
                    raise
            finally:
                self._running = None
                self._release(job)

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        try:
            await self._compute(job)
        except DrainingError:
            self.ledger.end(job, "queued")
        except (ServiceError, InputError) as error:
            self.ledger.end(job, "failed", str(error))
        except Exception as error:
            log.exception("job %s failed", job.id)
            self.ledger.end(job, "failed", f"An unexpected fault ({type(error).__name__}); the service's log has it.")
        else:
            if self.ledger.end(job, "succeeded"):
                log.info("job %s is done after %.1f s", job.id, time.monotonic() - started)

    async def _compute(self, job: Job) -> None:
        manifest = Manifest.from_json(job.manifest)
        model = self._service.models.exactly(manifest.model)
        if model is None:
            name, version, _ = manifest.model
            raise JobStorageError(f"The model {name} {version} that this job was sent to is gone. Send it again.")
        with model.held():
            await self._compute_with(model, job, manifest)

    async def _compute_with(self, model: Model, job: Job, manifest: Manifest) -> None:
        store = JobStore(self.folder(job.id))
        upload = upload_of(manifest, store.folder, self._service)
        done = self.ledger.chunks(job)
        async with aclosing(model.parsers.parse(upload)) as parts:
            opened = await anext(parts)
            assert isinstance(opened, Opened)
            tasks = await asyncio.to_thread(tasks_of, manifest, model, opened)
            await asyncio.to_thread(store.open, tasks, opened)
            self.ledger.set_rows(job, opened.num_cells)
            number, waiting = 0, list[Prepared]()
            async for part in parts:
                assert isinstance(part, Prepared)
                waiting.append(part)
                rows = sum(len(prepared.rows) for prepared in waiting)
                if rows >= CHUNK_ROWS or number * CHUNK_ROWS + rows == opened.num_cells:
                    if number not in done:
                        results = await self._results(model, tasks, waiting, number * CHUNK_ROWS, rows, store.folder)
                        await asyncio.to_thread(store.put, number, results.values, results.cells, results.input)
                        _remove(results)
                        if not self.ledger.commit_chunk(job, number, rows):
                            raise JobStorageError("Another process runs this job.")
                    number, waiting = number + 1, []

    async def _results(
        self, model: Model, tasks: tuple[Task, ...], parts: list[Prepared], first: int, rows: int, folder: Path
    ) -> Results:
        while True:
            try:
                async with Computation(model, tasks, rows, folder, first=first, lane="bulk") as computation:
                    for part in parts:
                        await computation.add(part)
                    return await computation.results()
            except QueueFullError as error:  # others come first; a job has time
                await asyncio.sleep(min(5, error.retry_after or 1))

    async def _expire(self) -> None:
        while True:
            for job_id in self.ledger.expire(time.time() - self._keep_seconds):
                await asyncio.to_thread(shutil.rmtree, self.folder(job_id), ignore_errors=True)
            await asyncio.sleep(_EXPIRY_CHECK_SECONDS)


def upload_of(manifest: Manifest, folder: Path, service: Service) -> Upload:
    """The job's body on its way to a parser."""
    return Upload(
        body_path(folder),
        manifest.media_type,
        manifest.content_encoding,
        manifest.layer,
        manifest.declared,
        service.settings.max_cells,
        service.settings.max_body_bytes,
        extras=manifest.asked.extras,
    )


def tasks_of(manifest: Manifest, model: Model, opened: Opened) -> tuple[Task, ...]:
    """The job's tasks; imputed columns are those of the file when the answer was asked for as h5ad."""
    target = opened.target if manifest.accept == "application/x-hdf5" else None
    return manifest.asked.tasks(model.bundle, model.info, target, opened.extras, opened.num_cells)


def _keep_body(body: Body, folder: Path) -> None:
    folder.mkdir()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        if body.path is None:
            file.write(body.data or b"")
        else:
            with body.path.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
    Path(file.name).rename(body_path(folder))


def _remove(results: Results) -> None:
    for values in results.values.values():
        if isinstance(values, StoredValues):
            values.path.unlink(missing_ok=True)
