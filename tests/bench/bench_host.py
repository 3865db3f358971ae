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
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]

from scpalm.app.codecs.result import Result
from scpalm.app.execution.execution import Execution
from scpalm.app.execution.worker import Worker
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.queue.transport import LANES, Turn
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.serving.opener import session_info
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.app.storage.values import ResultSpace
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.genes.prepare import Prepared
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.embed import Embed
from tests.bench.bench_parsing import bodies, make_cells
from tests.bench.host_limits import own_limits
from tests.bench.sleeping_device import ARROW, Bench, SleepingSession, feed, prepare_all

# Requests at once, so that the queue is not empty while answers are encoded.
REQUESTS_AT_ONCE = 8


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
