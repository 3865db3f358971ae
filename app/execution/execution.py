"""The cells of one request on the device: parts are queued as they come, results are put together in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from scpalm.app.codecs.codec import CHUNK_CELLS
from scpalm.app.errors import InferenceError
from scpalm.app.parsing.pool import Opened
from scpalm.app.queue.transport import Lane, WorkItem, WorkResult
from scpalm.app.serving.model import Model
from scpalm.app.storage.values import StoredValues, Table
from scpalm.app.tasks.task import Task, Values
from scpalm.model.genes.normalize import InputReport
from scpalm.model.genes.prepare import Prepared

TaskPlan = Callable[[Model, Opened, str], tuple[Task, ...]]
# Of results that are computed and not yet put away: cells of wide tasks go to the device in smaller works, and only a
# few of these wait at once.
_WORK_BYTES = 8 << 20
_WORKS_AHEAD = 64


@dataclass(frozen=True, eq=False)
class Results:
    """What became of a request's cells.

    Attributes:
        values: of each task by its name, ``[B, width]``. cells: their names. input: counts or log, and why.
        started: by the monotonic clock, when the first cell was queued. queue_seconds: from then until it reached the
            device. inference_seconds: from then to the last one.
    """

    values: dict[str, Values | StoredValues]
    cells: list[str]
    input: InputReport
    started: float
    queue_seconds: float
    inference_seconds: float


class Computation:
    """`add` every part, then wait for `results`; a context manager: leaving it early abandons what is queued.

    Args:
        num_cells: of all parts. directory: where large results are kept.
    """

    def __init__(
        self,
        model: Model,
        tasks: tuple[Task, ...],
        num_cells: int,
        directory: Path,
        *,
        first: int = 0,
        lane: Lane | None = None,
    ) -> None:
        self._transport = model.transport
        self._tasks = tasks
        self._lane = lane or model.lane_of(num_cells)
        self._num_cells = num_cells
        self._first = first
        self._request = uuid4().hex
        self._tables = {task.name: Table((num_cells, task.width), task.dtype, directory) for task in tasks}
        self._step = max(1, _WORK_BYTES // max(4 * task.width for task in tasks))
        self._ahead = asyncio.Semaphore(_WORKS_AHEAD)
        self._waiting: set[asyncio.Task[None]] = set()
        self._cells: list[str] = []
        self._input: InputReport | None = None
        self._started = 0.0
        self._queue_seconds: float | None = None
        self._rows_done = 0
        self._failed: Exception | None = None
        self._over = asyncio.Event()

    async def __aenter__(self) -> Computation:
        # What is one work is admitted when it is submitted.
        if self._num_cells > min(CHUNK_CELLS, self._step):
            await self._transport.admit(self._request, self._num_cells, self._lane)
        return self

    async def __aexit__(self, *_: object) -> None:
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._transport.dismiss(self._request)

    async def add(self, part: Prepared) -> None:
        """Queue the next cells. Raises QueueFullError, and what an earlier part failed with."""
        self._started = self._started or time.monotonic()
        self._input = self._input or part.input
        for start in range(0, len(part.rows), self._step):
            await self._ahead.acquire()
            if self._failed is not None:
                raise self._failed
            piece = part.slice(start, min(start + self._step, len(part.rows)))
            first = len(self._cells)
            work = WorkItem(self._tasks, self._tasks[0].reads(piece), self._lane, self._first + first, self._request)
            await self._transport.submit(work)
            self._cells += piece.cells
            waiting = asyncio.create_task(self._collect(work, first, piece))
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)

    async def _collect(self, work: WorkItem, first: int, piece: Prepared) -> None:
        try:
            outcome = await self._transport.reply(work.id)
            await self._put(outcome, first, piece)
            self._rows_done += len(piece.rows)
        except Exception as error:  # told by `add` or `results`, whichever comes next
            self._failed = self._failed or error
        finally:
            self._ahead.release()
        if self._failed is not None or self._rows_done == self._num_cells:
            self._over.set()

    async def _put(self, outcome: WorkResult, first: int, piece: Prepared) -> None:
        if outcome.error is not None:
            raise outcome.error
        if outcome.values is None:
            raise InferenceError("The model gave neither values nor an error.")
        if self._queue_seconds is None:
            self._queue_seconds = outcome.queue_seconds
        for task in self._tasks:
            table, values = self._tables[task.name], task.finish(outcome.values[task.name], piece)
            if table.in_file:
                await asyncio.to_thread(table.put, first, values)
            else:
                table.put(first, values)

    async def results(self) -> Results:
        """Wait until every cell is done. Raises ServiceError."""
        if len(self._cells) != self._num_cells or self._input is None:
            raise InferenceError(f"{len(self._cells)} of {self._num_cells} cells came out of the parser.")
        await self._over.wait()
        if self._failed is not None:
            raise self._failed
        queue = self._queue_seconds or 0.0
        return Results(
            {name: table.finish() for name, table in self._tables.items()},
            self._cells,
            self._input,
            self._started,
            queue,
            time.monotonic() - self._started - queue,
        )
