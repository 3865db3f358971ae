"""What the host can do for a fast device: the device is a session that sleeps as long as a GPU would compute.

    PYTHONPATH=. python tests/bench/bench_host.py [--rate 50000 | --kit kit.json] [--genes 1000] [--batch 4096]

1. The host's own limits, each step alone: cells per second of CPU time of one core.
2. The device's loop: cells that are already parsed wait in the queue, and the real queue, batcher and worker feed the
   session. "device busy": seconds in the session over seconds in which cells waited.
3. From host to answer: Arrow bodies through parser processes, queue, batcher and worker to encoded Arrow answers.

The rate comes from the GPU kit's JSON (``python -m tests.gpu.kit --json kit.json``) if it is given. All processes share
the cores of this machine, so the third part shows the limit of these cores, not that of the code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from scipy import sparse

from scpalm.app.codecs.codec import DecodeOptions, Reader
from scpalm.app.codecs.registry import writer_for
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.execution.execution import Execution
from scpalm.app.execution.worker import Worker
from scpalm.app.parsing.messages import receive, send
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.parsing.wire import PartReader, pack_part
from scpalm.app.queue.transport import LANES, Turn, WorkItem
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.serving.opener import session_info
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.app.storage.values import ResultSpace
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import CHUNK_CELLS, Prepared, Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, SessionInfo, Speed
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.embed import Embed
from tests.bench.bench_parsing import best, bodies, make_cells

ARROW = "application/vnd.apache.arrow.stream"
WIDE_OPEN = 1 << 40
# Requests at once, so that the queue is not empty while answers are encoded.
REQUESTS_AT_ONCE = 8


class SleepingSession:
    """Sleeps for the time that a device of ``rate`` cells a second would take. Safe for one thread.

    Attributes:
        spans: start and end of every run, by ``time.perf_counter()``, and its number of cells.
        work_between: CPU seconds of the worker's device thread before each run.
    """

    def __init__(self, info: SessionInfo, rate: float) -> None:
        self._info, self._rate = info, rate
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


# --- the host's own limits


def own_limits(bench: Bench, folder: Path) -> float:
    """Print a line per step. Returns cells per second of one parser that reads Arrow."""
    print(f"\n| one core, cells of {bench.counts.nnz / bench.num_cells:,.0f} genes | cells a second of CPU time |")
    print("|---|---|")
    decoded = {
        name: line(f"read {name}", bench, partial(_read, reader, body))
        for name, reader, body in bodies(bench.counts, bench.genes, folder)
    }
    align = line("match genes, log1p CP10K (in the parser)", bench, lambda: prepare_each(bench))
    copied = line("copy from the parser to the service (both ends)", bench, lambda: through_pipe(bench))
    line("... of which join the rows of a batch", bench, lambda: Rows.concat(bench.rows))
    batched = line("queue, batch, finite check, return", bench, lambda: run_batches(bench, WIDE_OPEN))
    answered = line("write the answer as Arrow", bench, lambda: encode_answer(bench))
    parser = 1 / (1 / decoded["arrow"] + 1 / align + 0.5 / copied)
    of_h5ad = 1 / (1 / decoded["h5ad"] + 1 / align + 0.5 / copied)
    service = 1 / (0.5 / copied + 1 / batched + 1 / answered)
    print(f"| **one parser, Arrow / h5ad** | **{parser:,.0f} / {of_h5ad:,.0f}** |")
    print(f"| **the service's process, Arrow** | **{service:,.0f}** |")
    for target in sorted({50_000.0, bench.rate}):
        print(f"| parsers for {target:,.0f} cells/s, Arrow / h5ad | {_needed(target, parser, of_h5ad)} |")
    return parser


def _read(reader: Reader, body: bytes | Path) -> None:
    for _ in reader.decode(body, DecodeOptions()):
        pass


def _needed(target: float, *rates: float) -> str:
    return " / ".join(str(math.ceil(target / rate)) for rate in rates)


def line(name: str, bench: Bench, run: Callable[[], object]) -> float:
    rate = bench.num_cells / best(run, 5)
    print(f"| {name} | {rate:,.0f} |", flush=True)
    return rate


def prepare_each(bench: Bench) -> None:
    prepare_all(bench.bundle, bench.counts, bench.genes)


def through_pipe(bench: Bench) -> None:
    """The cells as messages, both ends in this process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    head = UploadHead(bench.num_cells, bench.prepared[0].coverage, np.zeros(1, np.int32))
    measured = bench.prepared[0].rows.gene_sets[0].measured

    def write() -> None:
        for number, part in enumerate(bench.prepared):
            first = number == 0
            send(sender, pack_part(head if first else None, measured if first else None, part))

    thread = threading.Thread(target=write)
    thread.start()
    reader = PartReader(len(bench.bundle.vocabulary), None)
    for _ in bench.prepared:
        reader.read(receive(receiver))
    thread.join()
    receiver.close()
    sender.close()


def run_batches(bench: Bench, rate: float) -> SleepingSession:
    """Every cell once through queue, batcher and worker."""
    return asyncio.run(feed(bench, rate, seconds=0.0))


def encode_answer(bench: Bench) -> None:
    info = session_info(bench.bundle)
    task = Embed(info)
    values = np.ones((bench.num_cells, info.embedding_width), np.float32)
    writer = writer_for(ARROW)
    assert writer is not None
    names = [name for part in bench.prepared for name in part.cells]
    result = Result(names, (OutputValues(task.outputs[0], values),), {})
    with tempfile.TemporaryDirectory() as folder:
        writer.encode(result, Path(folder) / "answer")


# --- the device's loop


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


def device_loop(bench: Bench, seconds: float) -> None:
    print("\n| the device's loop: a session that sleeps | cells/s | device busy | ms between runs | of it CPU time |")
    print("|---|---|---|---|---|")
    for batch_cells in sorted({256, 1024, bench.batch_cells}):
        part = Bench(bench.bundle, bench.counts, bench.genes, bench.prepared, batch_cells, bench.rate)
        session = asyncio.run(feed(part, bench.rate, seconds=seconds))
        busy, found = session.busy()
        gaps = [b[0] - a[1] for a, b in zip(session.spans[1:-1], session.spans[2:], strict=True)]
        between, work = (1000 * float(np.median(times)) for times in (gaps, session.work_between[1:]))
        name = f"runs of {batch_cells:,} cells, {1000 * batch_cells / bench.rate:.1f} ms"
        print(f"| {name} | {found:,.0f} | {busy:.1%} | {between:.2f} | {work:.2f} |", flush=True)


# --- from host to answer


async def _answer(bench: Bench, pool: ParserPool, transport: MemoryTransport, body: bytes, folder: Path) -> int:
    """One request: parse, compute and encode. Returns the number of cells."""
    upload = Upload(body, ARROW, RequestSpec(("embed",)))
    task = Embed(session_info(bench.bundle))
    space = ResultSpace(folder, MemoryBudget(1 << 34))
    parts = pool.parse(upload)
    head = await anext(parts)
    assert isinstance(head, UploadHead)
    async with Execution(transport, (task,), head.num_cells, Turn("bulk"), space) as execution:
        async for part in parts:
            assert isinstance(part, Prepared)
            await execution.add(part)
        outputs = await execution.outputs()
    result = Result(execution.cells, outputs, {})
    encoded = await pool.encode(result, ARROW)
    if isinstance(encoded, Path):
        encoded.unlink()
    return head.num_cells


async def host_to_answer(bench: Bench, body: bytes, parsers: int, seconds: float) -> None:
    session = SleepingSession(session_info(bench.bundle), bench.rate)
    transport = MemoryTransport(max_rows=1 << 40, max_bytes=1 << 40)
    worker = Worker(session, transport, Metrics(["/embed"], ["arrow"], LANES), batch_rows=bench.batch_cells)
    worker.start()
    with tempfile.TemporaryDirectory() as folder:
        limits = ParserLimits(4 << 30, 3600.0)
        genes = bench.bundle.file("genes.parquet")
        async with ParserPool(genes, limits, num_processes=parsers, directory=Path(folder)) as pool:
            await _answer(bench, pool, transport, body, Path(folder))
            children = [psutil.Process(pid) for pid in pool.pids]
            done, started, before = 0, time.perf_counter(), _cpu_seconds(children)

            async def client() -> None:
                nonlocal done
                while time.perf_counter() < started + seconds:
                    cells = await _answer(bench, pool, transport, body, Path(folder))
                    done += cells

            await asyncio.gather(*(client() for _ in range(REQUESTS_AT_ONCE)))
            found = done / (time.perf_counter() - started)
            of_service, of_parsers = (
                done / (now - was) for now, was in zip(_cpu_seconds(children), before, strict=True)
            )
    await asyncio.to_thread(worker.stop)
    busy, _ = session.busy()
    print(f"| {parsers} parser(s) | {found:,.0f} | {busy:.1%} | {of_parsers:,.0f} | {of_service:,.0f} |", flush=True)


def _cpu_seconds(children: list[psutil.Process]) -> tuple[float, float]:
    """CPU seconds of this process, and of the parsers."""
    return time.process_time(), sum(sum(child.cpu_times()[:2]) for child in children)


def answers(bench: Bench, folder: Path, seconds: float) -> None:
    print("\n| host to answer, Arrow both ways | cells/s | device busy | a core of parsers | a core of the service |")
    print("|---|---|---|---|---|")
    body = arrow_body(bench, folder)
    for parsers in (1, 2):
        asyncio.run(host_to_answer(bench, body, parsers, seconds))


def arrow_body(bench: Bench, folder: Path) -> bytes:
    return next(body for name, _, body in bodies(bench.counts, bench.genes, folder) if name == "arrow")  # type: ignore[return-value]


def rate_of(kit: Path) -> float:
    """The best rate of the torch session from host memory in the JSON of the GPU kit, or that of ONNX Runtime."""
    lines = json.loads(kit.read_text())["lines"]
    found = [line["measured"] for line in lines if line.get("key") == "cells_per_second_from_host"]
    if not found:
        raise SystemExit(f"{kit} has no rates. Run python -m tests.gpu.kit --json {kit}.")
    return float(max(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50_000.0, help="cells per second of the device")
    parser.add_argument("--kit", type=Path, help="JSON of the GPU kit, for the rate")
    parser.add_argument("--genes", type=int, default=1000, help="expressed genes of a cell")
    parser.add_argument("--cells", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=4096, help="most cells in a run of the session")
    parser.add_argument("--part", type=int, choices=[1, 2, 3], nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, default=6.0, help="per line")
    options = parser.parse_args()
    rate = options.rate if options.kit is None else rate_of(options.kit)
    bundle = Bundle.load()
    genes = bundle.vocabulary.symbols[:20_000]
    counts = make_cells(genes, options.cells, options.genes)
    bench = Bench(bundle, counts, genes, prepare_all(bundle, counts, genes), options.batch, rate)
    print(f"{os.cpu_count()} cores; the session sleeps for {rate:,.0f} cells/s")
    with tempfile.TemporaryDirectory() as folder:
        if 1 in options.part:
            own_limits(bench, Path(folder))
        if 2 in options.part:
            device_loop(bench, options.seconds)
        if 3 in options.part:
            answers(bench, Path(folder), options.seconds)


if __name__ == "__main__":
    main()
