"""Compare latency and rate of two checkouts: `python -m tests.bench.bench_two_versions OTHER [--module app.cli]`.

Both servers run all the time and rounds alternate, so that other work on the machine affects both equally. Prints
medians over the rounds, and the median ratio of this checkout to the other one.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from tests.bench.bench_service import ROOT, real_cells
from tests.bench.service import ARROW, H5AD, JSON, Request, requests_of
from tests.redis_server import RedisServer

ROUNDS = 9


class Version:
    """A running service of one checkout. With ``redis``, it computes in a worker connected by Redis."""

    def __init__(self, root: Path, module: str, folder: Path, *, redis: bool) -> None:
        self._folder = folder / root.name
        self._folder.mkdir()
        self._environment = os.environ | {"PYTHONPATH": str(root), "SCPALM_SPOOL_DIR": str(self._folder)}
        self._environment["SCPALM_RESULTS_DIR"] = str(self._folder / "jobs")
        self._redis = RedisServer(self._folder / "redis").start() if redis else None
        self._processes: list[subprocess.Popen[bytes]] = []
        if self._redis is not None:
            self._environment["SCPALM_REDIS_URL"] = self._redis.url
            self._start(module, "worker")
        log = self._start(module, "serve")
        while (found := re.search(r"listening on (http://\S+)", log.read_text())) is None:
            if self._processes[-1].poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        self.client = httpx.Client(base_url=found[1], timeout=120)
        while self.client.get("/health/ready").status_code != 200:
            time.sleep(0.1)

    def _start(self, module: str, command: str) -> Path:
        log = self._folder / f"{command}.log"
        with log.open("wb") as stderr:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, command, "--port", "0"],
                    cwd=self._folder,
                    env=self._environment,
                    stderr=stderr,
                )
            )
        return log

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(60)
        if self._redis is not None:
            self._redis.stop()

    def post(self, request: Request) -> None:
        self.client.post("/embed", content=request.body, headers=request.headers).raise_for_status()


def times_of(version: Version, requests: list[Request]) -> list[float]:
    """Latencies of sequential requests in milliseconds."""
    times = []
    for request in requests:
        start = time.perf_counter()
        version.post(request)
        times.append(1000 * (time.perf_counter() - start))
    return times


def latency(version: Version, requests: list[Request]) -> float:
    """Median latency of sequential requests in milliseconds."""
    return statistics.median(times_of(version, requests))


def slowest(version: Version, requests: list[Request]) -> float:
    """99th percentile of the latency of sequential requests in milliseconds."""
    return statistics.quantiles(times_of(version, requests), n=100)[98]


def rate(version: Version, requests: list[Request]) -> float:
    """Cells per second with eight concurrent requests."""
    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(version.post, requests))
    return sum(request.cells for request in requests) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--module", default="scpalm.app.cli", help="module of the other checkout's command line")
    parser.add_argument("--redis", action="store_true", help="use Redis and one worker")
    chosen = parser.parse_args()
    cells, _ = real_cells(Bundle.load(DEFAULT_BUNDLE))
    cases: list[tuple[str, Callable[[Version, list[Request]], float], list[Request]]] = [
        ("one cell, JSON, ms", latency, requests_of(cells, JSON, 1, 60)),
        ("one cell, Arrow, ms", latency, requests_of(cells, ARROW, 1, 60)),
        ("one cell, Arrow, p99 ms", slowest, requests_of(cells, ARROW, 1, 300)),
        ("64 cells, h5ad, ms", latency, requests_of(cells, H5AD, 64, 8)),
        ("64 cells, Arrow, cells/s", rate, requests_of(cells, ARROW, 64, 32)),
        ("64 cells, JSON, cells/s", rate, requests_of(cells, JSON, 64, 32)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        versions = [
            Version(chosen.other.resolve(), chosen.module, Path(folder), redis=chosen.redis),
            Version(ROOT, "scpalm.app.cli", Path(folder), redis=chosen.redis),
        ]
        print(f"{'':26} {'other':>9} {'this':>9} {'ratio':>7}")
        for name, measure, requests in cases:
            for version in versions:
                measure(version, requests)  # warms up
            # Every other round starts with the other one.
            pairs = [[measure(v, requests) for v in versions[:: 1 - 2 * (n % 2)]] for n in range(ROUNDS)]
            pairs = [pair[:: 1 - 2 * (n % 2)] for n, pair in enumerate(pairs)]
            before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(new / old for old, new in pairs)
            print(f"{name:26} {before:9.2f} {after:9.2f} {ratio:7.3f}", flush=True)
        for version in versions:
            version.stop()


if __name__ == "__main__":
    main()
