"""The cells of one request on the device: parts are queued as they arrive, and their results put together in order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import uuid4

from scpalm.app.codecs.result import OutputValues
from scpalm.app.errors import InferenceError
from scpalm.app.queue.transport import Transport, Turn, WorkItem, WorkResult
from scpalm.app.storage.values import ResultSpace, SpooledArray, StoredValues
from scpalm.model.genes.prepare import CHUNK_CELLS, Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.spec import outputs_of
from scpalm.model.tasks.task import BoundTask, Values

# Bounds the results that are computed but not yet stored: cells of wide tasks go to the device in smaller items, and
# few of these are in flight at once.
_ITEM_BYTES = 8 << 20
_ITEMS_IN_FLIGHT = 64


@dataclass(frozen=True)
class Timing:
    """When a request reached the device.

    Attributes:
        started: by the monotonic clock, when the first cell was queued. queue_seconds: from then until it reached the
            device. inference_seconds: from then until the last cell was done.
    """

    started: float
    queue_seconds: float
    inference_seconds: float


class Execution:
    """`add` every part, then wait for `outputs`. A context manager: leaving it early abandons what is queued.

    Args:
        tasks: what to compute. num_cells: of all parts. turn: whose turn in the queue it waits for.
        space: where results are kept.
        first: position of the first cell in the whole request.

    Attributes:
        cells: names of the cells added so far. report: what the values were taken for, once a part was added.
    """

    def __init__(
        self,
        transport: Transport,
        tasks: tuple[BoundTask, ...],
        num_cells: int,
        turn: Turn,
        space: ResultSpace,
        *,
        first: int = 0,
    ) -> None:
        self.cells: list[str] = []
        self.report: InputReport | None = None
        self._transport = transport
        self._tasks = tasks
        self._turn = turn
        self._num_cells = num_cells
        self._first = first
        self._request = uuid4().hex
        self._specs = outputs_of(tasks)
        self._tables = {spec.name: space.array((num_cells, spec.width), spec.dtype) for spec in self._specs}
        self._step = max(1, _ITEM_BYTES // max(4 * spec.width for spec in self._specs))
        self._room = asyncio.Semaphore(_ITEMS_IN_FLIGHT)
        self._collecting: set[asyncio.Task[None]] = set()
        self._started = 0.0
        self._queue_seconds: float | None = None
        self._rows_done = 0
        self._error: Exception | None = None
        self._over = asyncio.Event()

    async def __aenter__(self) -> Execution:
        # A request of one item is admitted when that is submitted.
        if self._num_cells > min(CHUNK_CELLS, self._step):
            await self._transport.admit(self._request, self._num_cells, self._turn.lane)
        return self

    async def __aexit__(self, *_: object) -> None:
        for collecting in self._collecting:
            collecting.cancel()
        await asyncio.gather(*self._collecting, return_exceptions=True)
        await self._transport.dismiss(self._request)

    async def add(self, part: Prepared) -> None:
        """Queue the next cells. Raises QueueFullError, InputError, and the error of an earlier part."""
        self._started = self._started or time.monotonic()
        self.report = self.report or part.input
        for start in range(0, len(part.rows), self._step):
            await self._room.acquire()
            if self._error is not None:
                raise self._error
            piece = part.slice(start, min(start + self._step, len(part.rows)))
            first = len(self.cells)
            rows = self._tasks[0].select_rows(piece)
            item = WorkItem(self._tasks, rows, self._turn.lane, self._first + first, self._request, self._turn.client)
            await self._transport.submit(item)
            self.cells += piece.cells
            collecting = asyncio.create_task(self._collect(item, first, piece))
            self._collecting.add(collecting)
            collecting.add_done_callback(self._collecting.discard)

    async def _collect(self, item: WorkItem, first: int, piece: Prepared) -> None:
        try:
            result = await self._transport.reply(item.id)
            await self._store(result, first, piece)
            self._rows_done += len(piece.rows)
        except Exception as error:  # raised by `add` or `outputs`, whichever comes next
            self._error = self._error or error
        finally:
            self._room.release()
        if self._error is not None or self._rows_done == self._num_cells:
            self._over.set()

    async def _store(self, result: WorkResult, first: int, piece: Prepared) -> None:
        if result.error is not None:
            raise result.error
        if result.values is None:
            raise InferenceError("The model returned neither values nor an error.")
        if self._queue_seconds is None:
            self._queue_seconds = result.queue_seconds
        for task in self._tasks:
            values = {spec.name: result.values[spec.name] for spec in task.outputs}
            for name, finished in task.finish(values, piece).items():
                table = self._tables[name]
                if table.in_file:
                    await asyncio.to_thread(table.put, first, finished)
                else:
                    table.put(first, finished)

    async def wait(self) -> None:
        """Wait until every cell is done. Raises ServiceError, InputError."""
        if len(self.cells) != self._num_cells:
            raise InferenceError(f"{len(self.cells)} of {self._num_cells} cells came out of the parser.")
        await self._over.wait()
        if self._error is not None:
            raise self._error

    async def outputs(self) -> tuple[OutputValues, ...]:
        """The values of all cells, once they are done. Raises ServiceError, InputError."""
        await self.wait()
        return tuple([OutputValues(spec, await _finished(self._tables[spec.name])) for spec in self._specs])

    def timing(self) -> Timing:
        """Call it when `outputs` has returned."""
        queue = self._queue_seconds or 0.0
        return Timing(self._started, queue, time.monotonic() - self._started - queue)


async def _finished(table: SpooledArray) -> Values | StoredValues:
    # A file is flushed to the disk, which takes seconds for gigabytes.
    return await asyncio.to_thread(table.finish) if table.in_file else table.finish()
