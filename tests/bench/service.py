"""Performance targets of the service under load: `python -m tests.bench.service [--file CELLS.h5ad]`.

Saturation is measured in pairs, a round of requests and then the bare session on as many cells, so that other work on
the machine affects both. Latency is measured in an open loop: requests start at seeded random times, even if earlier
ones are unanswered, so that slow responses do not hide the wait of later requests.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
import pyarrow as pa

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from tests.bench.bench_service import BATCH_CELLS, as_h5ad, as_json, as_rows, bare, real_cells, served, take

ARROW, JSON, H5AD = "application/vnd.apache.arrow.stream", "application/json", "application/x-hdf5"
FILE_CELLS = 10_000


@dataclass(frozen=True)
class Request:
    """A body, its headers, and its number of cells."""

    body: bytes
    headers: dict[str, str]
    cells: int


@dataclass(frozen=True)
class Reply:
    """Seconds from the scheduled start of a request to the last byte of its response, and the part on the device."""

    seconds: float
    device_seconds: float


def as_arrow(cells: anndata.AnnData) -> bytes:
    matrix = cells.X.astype(np.float32)
    offsets = pa.array(matrix.indptr.astype(np.int32))
    columns = {
        "indices": pa.ListArray.from_arrays(offsets, pa.array(matrix.indices.astype(np.int32))),
        "data": pa.ListArray.from_arrays(offsets, pa.array(matrix.data)),
    }
    table = pa.table(columns).replace_schema_metadata({"genes": json.dumps(list(cells.var_names))})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def requests_of(cells: anndata.AnnData, media_type: str, size: int, number: int) -> list[Request]:
    encode = {ARROW: as_arrow, JSON: as_json, H5AD: as_h5ad}[media_type]
    headers = {"content-type": media_type, "accept": media_type, "accept-encoding": "identity"}
    return [Request(encode(take(cells, at * size, size)), headers, size) for at in range(number)]


async def ask(client: httpx.AsyncClient, request: Request, due: float) -> Reply:
    answer = await client.post("/embed", content=request.body, headers=request.headers)
    assert answer.status_code == 200, answer.text
    timing = re.search(r"inference;dur=([\d.]+)", answer.headers["server-timing"])
    return Reply(time.perf_counter() - due, float(timing[1]) / 1000 if timing else 0.0)


async def saturate(client: httpx.AsyncClient, requests: list[Request], number: int, at_once: int) -> float:
    """Cells per second with ``at_once`` requests always in flight."""
    turn = asyncio.Semaphore(at_once)

    async def one(at: int) -> None:
        async with turn:
            await ask(client, requests[at % len(requests)], 0.0)

    started = time.perf_counter()
    await asyncio.gather(*(one(at) for at in range(number)))
    return number * requests[0].cells / (time.perf_counter() - started)


async def open_loop(client: httpx.AsyncClient, requests: list[Request], rate: float, seconds: float) -> list[Reply]:
    """Replies to requests that start at random times, ``rate`` per second."""
    random = np.random.default_rng(0)
    due = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    started = time.perf_counter()

    async def one(at: int) -> Reply:
        await asyncio.sleep(max(0.0, started + due[at] - time.perf_counter()))
        return await ask(client, requests[at % len(requests)], started + due[at])

    return list(await asyncio.gather(*(one(at) for at in range(len(due)))))


def milliseconds(values: list[float], quantile: float) -> float:
    return float(np.quantile(values, quantile)) * 1000


async def measure(url: str, cells: anndata.AnnData, bundle: Bundle, repeats: int) -> None:
    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        base_rows = as_rows(take(cells, 0, 1024), bundle)
        base = bare(bundle, base_rows)
        base()
        heads = ("cells/s", "bare", "ratio", "least", "most")
        print(f"\n{'saturation, POST /embed':44s}" + "".join(f"{head:>9s}" for head in heads))
        for name, media_type, size, number, at_once in (
            ("Arrow, 64 cells, 8 at once", ARROW, 64, 16, 8),
            ("Arrow, 64 cells, 32 at once", ARROW, 64, 32, 32),
            ("JSON, 64 cells, 8 at once", JSON, 64, 16, 8),
            ("Arrow, 1 cell, 64 at once", ARROW, 1, 256, 64),
        ):
            requests = requests_of(cells, media_type, size, 8 if size > 1 else 64)
            await saturate(client, requests, number, at_once)
            pairs = [(await saturate(client, requests, number, at_once), base()) for _ in range(repeats)]
            ratios = [service / other for service, other in pairs]
            middle, other = (statistics.median(column) for column in zip(*pairs, strict=True))
            row = f"{name:44s}{middle:9.0f}{other:9.0f}{statistics.median(ratios):9.0%}"
            print(f"{row}{min(ratios):9.0%}{max(ratios):9.0%}", flush=True)
        heads = ("rate/s", "p50 ms", "p99 ms", "added", "p99 ms")
        print(f"\n{'open loop, one cell':44s}" + "".join(f"{head:>9s}" for head in heads))
        for name, media_type in (("Arrow", ARROW), ("JSON", JSON)):
            requests = requests_of(cells, media_type, 1, 64)
            for rate in (5.0, 20.0):
                await open_loop(client, requests, rate, 2.0)
                replies = await open_loop(client, requests, rate, 15.0)
                all_, added = [r.seconds for r in replies], [r.seconds - r.device_seconds for r in replies]
                figures = [milliseconds(values, q) for values in (all_, added) for q in (0.5, 0.99)]
                print(f"{name:44s}{rate:9.0f}" + "".join(f"{figure:9.1f}" for figure in figures), flush=True)
        await during_a_file(client, cells, BATCH_CELLS / base())


async def during_a_file(client: httpx.AsyncClient, cells: anndata.AnnData, batch_seconds: float) -> None:
    """Latency of single cells while a large file is being computed."""
    single = requests_of(cells, ARROW, 1, 16)
    file = asyncio.create_task(ask(client, requests_of(cells, H5AD, FILE_CELLS, 1)[0], 0.0))
    await asyncio.sleep(2.0)
    waits: list[float] = []
    while not file.done() and len(waits) < 30:
        started = time.perf_counter()
        reply = await ask(client, single[len(waits) % 16], started)
        if not file.done():
            waits.append(reply.seconds)
    await file
    middle, most = milliseconds(waits, 0.5), milliseconds(waits, 1.0)
    batch = batch_seconds * 1000
    print(f"\none cell during a file of {FILE_CELLS} cells: median {middle:.0f} ms, most {most:.0f} ms of {len(waits)}")
    print(f"a batch of {BATCH_CELLS} cells is {batch:.0f} ms: {middle / batch:.1f} and {most / batch:.1f} batch times")


async def retry_after(url: str, cells: anndata.AnnData, repeats: int) -> None:
    """Compare Retry-After of a full queue with the time until the queue was empty."""
    file = requests_of(cells, H5AD, 1000, 1)[0]
    print(f"\n{'queue full: Retry-After':44s}{'header s':>9s}{'actual s':>9s}{'ratio':>9s}")
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        await ask(client, file, 0.0)  # the speed is known
        for _ in range(repeats):
            answers = await asyncio.gather(*(_send(client, file, 0.3 * at) for at in range(9)))
            refused = next(answer for answer in answers if answer[0].status_code == 429)
            done = max(ended for answer, ended in answers if answer.status_code == 200)
            said, true = float(refused[0].headers["retry-after"]), done - refused[1]
            print(f"{'files of 1000 cells, 4000 may wait':44s}{said:9.0f}{true:9.1f}{said / true:9.2f}", flush=True)


async def _send(client: httpx.AsyncClient, request: Request, after: float) -> tuple[httpx.Response, float]:
    await asyncio.sleep(after)
    answer = await client.post("/embed", content=request.body, headers=request.headers)
    return answer, time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--file", type=Path, help="an h5ad file to send instead of the sample cells")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of rounds; medians are shown")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    cells, what = real_cells(bundle) if arguments.file is None else (anndata.read_h5ad(arguments.file), "a file")
    print(f"{bundle.name} {bundle.version}, {os.cpu_count()} cores, batches of {BATCH_CELLS} cells")
    print(f"{cells.n_vars} genes, {what}")
    with served(arguments.bundle) as url:
        asyncio.run(measure(url, cells, bundle, arguments.repeats))
    with served(arguments.bundle, SCPALM_MAX_QUEUED_CELLS="4000", SCPALM_MAX_CELLS="4000") as url:
        asyncio.run(retry_after(url, cells, 3))


if __name__ == "__main__":
    main()
