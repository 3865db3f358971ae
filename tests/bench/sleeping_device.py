"""A device that sleeps, the cells it gets, and the real queue and worker that feed it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.app.execution.worker import Worker
from scpalm.app.queue.transport import LANES, WorkItem
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.serving.opener import session_info
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import CHUNK_CELLS, Prepared, Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, SessionInfo, Speed
from scpalm.model.tasks.embed import Embed

ARROW = "application/vnd.apache.arrow.stream"


class SleepingSession:
    """Sleeps for the time that a device of ``rate`` cells a second would take. Safe for one thread.

    Attributes:
        spans: start and end of every run, by ``time.perf_counter()``, and its number of cells.
        work_between: CPU seconds of the worker's device thread before each run.
    """

    def __init__(self, info: SessionInfo, rate: float) -> None:
        self._info, self._rate = replace(info, device="cuda:0"), rate  # like a GPU, it leaves the CPU free
        # The answers of a real session are filled by the device, so they cost the host nothing here.
        self._embedding = np.ones((65536, info.embedding_width), np.float32)
        self.spans: list[tuple[float, float, int]] = []
        self.work_between: list[float] = []
        self._thread_seconds = 0.0

    @property
    def info(self) -> SessionInfo:
        return self._info

    def warm_up(self) -> Speed:
        return Speed(self._rate)

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        started = time.perf_counter()
        self.work_between.append(time.thread_time() - self._thread_seconds)
        time.sleep(len(rows) / self._rate)
        self._thread_seconds = time.thread_time()
        self.spans.append((started, time.perf_counter(), len(rows)))
        out = self._embedding[: len(rows)]
        return Encoded(rows, out, out[:, :1], self._info.num_components, None)

    def impute(self, encoded: Encoded, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.zeros((len(encoded), len(genes)), np.float32)

    def busy(self) -> tuple[float, float]:
        """Share of time in runs between the second and the last run, and cells per second over that time."""
        spans = self.spans[1:]
        wall = spans[-1][1] - spans[0][0]
        return sum(end - start for start, end, _ in spans) / wall, sum(cells for *_, cells in spans) / wall


@dataclass(frozen=True)
class Bench:
    """What all parts share.

    Attributes:
        counts: the cells. genes: their gene names. prepared: the same cells, ready for a session.
        batch_cells: most cells in a run of the session. rate: of the session, in cells per second.
    """

    bundle: Bundle
    counts: sparse.csr_matrix
    genes: list[str]
    prepared: list[Prepared]
    batch_cells: int
    rate: float

    @property
    def rows(self) -> list[Rows]:
        return [part.rows for part in self.prepared]

    @property
    def num_cells(self) -> int:
        return self.counts.shape[0]


def as_matrix(counts: sparse.csr_matrix, genes: list[str]) -> CellMatrix:
    indptr, indices = counts.indptr.astype(np.int64), counts.indices.astype(np.int32)
    return CellMatrix(indptr, indices, counts.data, genes, [f"cell{number}" for number in range(counts.shape[0])])


def prepare_all(bundle: Bundle, counts: sparse.csr_matrix, genes: list[str]) -> list[Prepared]:
    preparer = Preparer(bundle.vocabulary, genes)
    return [preparer.prepare(part) for part in as_matrix(counts, genes).parts(CHUNK_CELLS)]


async def feed(bench: Bench, rate: float, *, seconds: float) -> SleepingSession:
    """Keep the queue full for ``seconds``, or pass every cell once. Returns the session with its runs."""
    info = session_info(bench.bundle)
    session = SleepingSession(info, rate)
    transport = MemoryTransport(max_rows=1 << 40, max_bytes=1 << 40)
    worker = Worker(session, transport, Metrics(["/embed"], ["arrow"], LANES), batch_rows=bench.batch_cells)
    worker.start()
    task, until = Embed(info), time.perf_counter() + seconds
    # Twice as many cells as a running batch and the one formed ahead.
    ahead = max(2, 4 * bench.batch_cells // CHUNK_CELLS)

    async def client(number: int) -> None:
        at = number
        while at < len(bench.rows) or time.perf_counter() < until:
            item = WorkItem((task,), bench.rows[at % len(bench.rows)], "bulk", 0, f"request {number}")
            await transport.submit(item)
            result = await transport.reply(item.id)
            assert result.error is None, result.error
            at += ahead

    await asyncio.gather(*(client(number) for number in range(ahead)))
    await asyncio.to_thread(worker.stop)
    return session
