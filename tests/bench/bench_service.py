"""Cells per second of the bare session and of POST /embed over real sockets: `python -m tests.bench.bench_service`."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
import orjson
from scipy import sparse

from scpalm.app.offline.sample import write_sample
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import CPU_BATCH_CELLS, open_session

BATCH_CELLS = CPU_BATCH_CELLS
SMALL_CELLS = 64
LARGE_CELLS = 2_700
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Load:
    """The load for one line of the table.

    Attributes:
        name: name in the table.
        bodies: bodies of the requests, sent repeatedly.
        cells: cells per request.
        headers: headers of each request.
        requests: number of requests per round.
        clients: number of concurrent clients.
    """

    name: str
    bodies: list[bytes]
    cells: int
    headers: dict[str, str]
    requests: int
    clients: int


def real_cells(bundle: Bundle) -> tuple[anndata.AnnData, str]:
    """The 559 real cells of the sample, or seeded random cells of similar density if celltypist is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        try:
            write_sample(path)
            return anndata.read_h5ad(path), "559 real cells (celltypist's demo counts), repeated"
        except InputError as error:
            print(error, file=sys.stderr)
    genes = bundle.vocabulary.symbols
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.03, 2.0, len(genes)), (559, len(genes))).astype(np.float32)
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.obs_names, cells.var_names = [f"cell{n}" for n in range(559)], genes
    return cells, "559 random cells, repeated"


def take(cells: anndata.AnnData, start: int, count: int) -> anndata.AnnData:
    part = cells[(np.arange(count) + start) % cells.n_obs].copy()
    part.obs_names = [f"cell{n}" for n in range(count)]
    return part


def as_json(cells: anndata.AnnData) -> bytes:
    matrix = cells.X
    parts = {"indptr": matrix.indptr.tolist(), "indices": matrix.indices.tolist(), "data": matrix.data.tolist()}
    return orjson.dumps({"genes": list(cells.var_names), **parts})


def as_h5ad(cells: anndata.AnnData) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        cells.write_h5ad(Path(folder) / "cells.h5ad")
        return (Path(folder) / "cells.h5ad").read_bytes()


def as_rows(cells: anndata.AnnData, bundle: Bundle) -> Rows:
    matrix = cells.X
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    cell_matrix = CellMatrix(indptr, indices, matrix.data, list(cells.var_names), list(cells.obs_names))
    return prepare(cell_matrix, bundle.vocabulary).rows


def bare(bundle: Bundle, rows: Rows) -> Callable[[], float]:
    """Cells per second of the bare session, with the batches and the number of threads of the service."""
    session = open_session(bundle)
    session.warm_up()

    def measure() -> float:
        started = time.perf_counter()
        for start in range(0, len(rows), BATCH_CELLS):
            session.encode(rows.slice(start, min(start + BATCH_CELLS, len(rows))))
        return len(rows) / (time.perf_counter() - started)

    return measure


@contextmanager
def served(bundle: Path, **settings: str) -> Iterator[str]:
    """Run `scpalm serve` and return its URL."""
    environment = os.environ | {"SCPALM_BUNDLE": str(bundle), "SCPALM_BATCH_CELLS": str(BATCH_CELLS)} | settings
    command = [sys.executable, "-m", "scpalm.app.cli", "serve", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(command, stderr=log, env=environment, cwd=ROOT)
        try:
            while not (found := re.search(r"listening on (http://\S+)", (Path(folder) / "log").read_text())):
                assert process.poll() is None, (Path(folder) / "log").read_text()
                time.sleep(0.05)
            while httpx.get(f"{found[1]}/health/ready").status_code != 200:
                assert process.poll() is None, (Path(folder) / "log").read_text()
                time.sleep(0.05)
            yield found[1]
        finally:
            process.terminate()
            process.wait(60)


def through_http(url: str, load: Load) -> Callable[[], float]:
    """Cells per second through POST /embed."""
    client = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=load.clients))

    def ask(number: int) -> None:
        body = load.bodies[number % len(load.bodies)]
        answer = client.post(f"{url}/embed", content=body, headers=load.headers)
        assert answer.status_code == 200, answer.text

    def measure() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(load.clients) as pool:
            list(pool.map(ask, range(load.requests)))
        return load.requests * load.cells / (time.perf_counter() - started)

    return measure


def one_by_one(url: str, body: bytes) -> tuple[float, float]:
    """Median and 99th percentile of the latency of single cells in milliseconds, without the time on the device."""
    seconds = []
    with httpx.Client() as client:
        for _ in range(100):
            started = time.perf_counter()
            answer = client.post(f"{url}/embed", content=body, headers={"content-type": "application/json"})
            total = time.perf_counter() - started
            timing = re.search(r"inference;dur=([\d.]+)", answer.headers["server-timing"])
            seconds.append(total * 1000 - float(timing[1] if timing else 0))
    return statistics.median(seconds), float(np.percentile(seconds, 99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--file", type=Path, help="an h5ad file to send instead of the sample's cells")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are shown")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    cells, what = real_cells(bundle) if arguments.file is None else (anndata.read_h5ad(arguments.file), "a file")
    small = [take(cells, start, SMALL_CELLS) for start in range(0, 512, SMALL_CELLS)]
    large = take(cells, 0, LARGE_CELLS)
    h5ad = {"content-type": "application/x-hdf5"}
    h5ad_to_json = {**h5ad, "accept": "application/json"}
    large_body = as_h5ad(large)
    loads = [
        Load(f"{LARGE_CELLS} cells, h5ad -> h5ad, 1 client", [large_body], LARGE_CELLS, h5ad, 1, 1),
        Load(f"{LARGE_CELLS} cells, h5ad -> h5ad, 3 clients", [large_body], LARGE_CELLS, h5ad, 3, 3),
        Load("64 cells, h5ad -> JSON, 8 clients", list(map(as_h5ad, small)), 64, h5ad_to_json, 32, 8),
        Load("64 cells, JSON, 8 clients", list(map(as_json, small)), 64, {"content-type": "application/json"}, 32, 8),
    ]
    measure_bare = bare(bundle, as_rows(large, bundle))
    measure_bare()
    print(f"{bundle.name} {bundle.version}, {os.cpu_count()} cores, batches of {BATCH_CELLS} cells")
    print(f"{large.n_vars} genes, {what}")
    print(f"medians of {arguments.repeats} rounds; each round of the service is followed by one of the bare session")
    print(f"{'POST /embed':48s} {'cells/s':>8s} {'bare':>8s} {'ratio':>7s} {'least':>7s} {'most':>7s}", flush=True)
    with served(arguments.bundle) as url:
        for load in loads:
            measure = through_http(url, load)
            measure()
            pairs = [(measure(), measure_bare()) for _ in range(arguments.repeats)]
            ratios = [service / base for service, base in pairs]
            speed, base = (statistics.median(column) for column in zip(*pairs, strict=True))
            row = f"{load.name:48s} {speed:8.0f} {base:8.0f} {statistics.median(ratios):7.0%}"
            print(f"{row} {min(ratios):7.0%} {max(ratios):7.0%}", flush=True)
        middle, tail = one_by_one(url, as_json(take(cells, 0, 1)[:, :2000].copy()))
    print(f"one cell of 2,000 genes, without inference: {middle:.1f} ms median, {tail:.1f} ms p99")


if __name__ == "__main__":
    main()
