"""One attempt at a job: parse its cells, then compute, store and commit every missing chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scpalm.app.background import completed
from scpalm.app.codecs.h5ad import MEDIA_TYPE as H5AD
from scpalm.app.execution.conclusion import in_thread
from scpalm.app.execution.execution import Execution
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.ledger.ledger import Job, Ledger
from scpalm.app.jobs.manifest import BODY_FILE, LABELLED_BODY_FILE, Manifest
from scpalm.app.jobs.retry import Retry
from scpalm.app.jobs.store import CHUNK_ROWS, JobStore
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.queue.transport import Turn
from scpalm.app.serving.labelled import embed_labelled
from scpalm.app.serving.model import ServedModel
from scpalm.app.serving.upload_slots import client_of
from scpalm.app.storage.scratch import ensure_folder, scratch_folder
from scpalm.app.storage.values import ResultSpace
from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.genes.prepare import Prepared
from scpalm.model.tasks.task import BoundTask, TaskContext

T = TypeVar("T")


class LostJobError(Exception):
    """The job was cancelled, or another process has taken it over."""


@dataclass(eq=False)
class Attempt:
    """One attempt at a job. Call `run`.

    Attributes:
        job: the job, as taken from the ledger.
        manifest: the request of the job.
        model: the model that the job was sent to.
        ledger: the ledger of the job.
        files: the files of the job.
        retry: repeats commands while storage is unavailable.
        spool_dir: folder for temporary files.
        concluding: the tasks, once all chunks are done.
    """

    job: Job
    manifest: Manifest
    model: ServedModel
    ledger: Ledger
    files: JobFiles
    retry: Retry
    spool_dir: Path
    concluding: tuple[BoundTask, ...] = ()

    @property
    def turn(self) -> Turn:
        """Whose turn its cells wait for."""
        return Turn("bulk", client_of(self.job.owner, ""))

    @property
    def share_concluded(self) -> float:
        """Finished share of the work that follows the last chunk, from 0 to 1."""
        return min((task.share_concluded for task in self.concluding if task.concludes), default=0.0)

    async def run(self) -> None:
        """Compute all chunks that are not committed yet.

        Raises LostJobError, and the errors of the parser, the queue and the model.
        """
        with self.model.held():
            async with scratch_folder(self.spool_dir) as folder:
                with ExitStack() as local:

                    async def fetch(name: str) -> Path:
                        return await self._in_thread(
                            lambda: local.enter_context(self.files.local(name, ensure_folder(folder)))
                        )

                    body = await fetch(BODY_FILE)
                    labelled = None
                    if self.manifest.labelled is not None:
                        upload = self.manifest.labelled_upload(await fetch(LABELLED_BODY_FILE))
                        labelled = await self.retry(lambda: embed_labelled(self.model, upload, folder, self.turn))
                    await self._compute(body, labelled, folder)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # A thread cannot be stopped. When this attempt is cancelled its files are removed, so the thread must be done.
        return await self.retry(lambda: completed(asyncio.to_thread(work)))

    async def _compute(self, body: Path, labelled: LabelledCells | None, scratch: Path) -> None:
        store = JobStore(self.files)
        done = await self.retry(lambda: self.ledger.chunks(self.job))
        async with aclosing(self.model.parsers.parse(self.manifest.upload(body))) as parts:
            head = await anext(parts)
            assert isinstance(head, UploadHead)
            tasks = await asyncio.to_thread(self._bind, head, labelled)
            await self._in_thread(lambda: store.open(tasks, head))
            await self.retry(lambda: self.ledger.set_rows(self.job, head.num_cells))
            number, chunk, rows = 0, list[Prepared](), 0
            async for part in parts:
                assert isinstance(part, Prepared)
                chunk.append(part)
                rows += len(part.rows)
                if rows >= CHUNK_ROWS or number * CHUNK_ROWS + rows == head.num_cells:
                    if number not in done:
                        await self._run_chunk(tasks, number, chunk, store, scratch)
                    number, chunk, rows = number + 1, [], 0
        self.concluding = tasks
        await self.retry(lambda: in_thread(tasks, lambda: store.conclude(tasks)))

    def _bind(self, head: UploadHead, labelled: LabelledCells | None) -> tuple[BoundTask, ...]:
        columns = head.columns if self.manifest.spec.format == H5AD else None
        model = self.model
        context = TaskContext(model.bundle, model.info, head.num_cells, columns, head.members, head.obs, labelled)
        return self.manifest.spec.bind(context)

    async def _run_chunk(
        self, tasks: tuple[BoundTask, ...], number: int, parts: list[Prepared], store: JobStore, scratch: Path
    ) -> None:
        rows = sum(len(part.rows) for part in parts)

        async def execute() -> None:
            # What a failed try has left is removed before the next one.
            async with scratch_folder(scratch) as folder:
                first = number * CHUNK_ROWS
                space = ResultSpace(folder, self.model.memory)
                async with Execution(self.model.transport, tasks, rows, self.turn, space, first=first) as execution:
                    for part in parts:
                        await execution.add(part)
                    outputs = await execution.outputs()
                report = execution.report
                assert report is not None
                # Write the chunk before the ledger refers to it.
                await self._in_thread(lambda: store.put(number, outputs, execution.cells, report))

        await self.retry(execute)
        await self._commit(number, rows)

    async def _commit(self, number: int, rows: int) -> None:
        if await self.retry(lambda: self.ledger.commit_chunk(self.job, number, rows)):
            return
        # An earlier try may have committed the chunk, and only its reply was lost.
        committed = await self.retry(lambda: self.ledger.chunks(self.job))
        if number not in committed or not await self.retry(lambda: self.ledger.renew(self.job)):
            raise LostJobError
