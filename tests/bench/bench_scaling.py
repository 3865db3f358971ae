"""Cells per second in one process and through Redis with 1, 2 and 8 workers, compared with the bare session.

    PYTHONPATH=. python tests/bench/bench_scaling.py [--sleep 0.5] [--seconds 8]

It measures the added latency too. The device is a session that sleeps for a fixed time per batch (`tests.chaos.entry`),
so this measures everything except the device. Clients, services, workers and Redis share the cores of this machine, so
the sleep must be long enough for them to keep up; the table also shows their CPU use. Requests are Arrow with 64 cells
of 500 genes.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import CPU_BATCH_CELLS
from tests.bench.service import ARROW, as_arrow
from tests.chaos.cluster import NO_REDIS, Cluster, Process, cluster, wait_until

BATCH_CELLS = CPU_BATCH_CELLS
REQUEST_CELLS = 64


def requests_of(size: int, number: int) -> list[bytes]:
    """Encoded HTTP requests with seeded counts."""
    genes = Bundle.load().vocabulary.symbols[:500]
    made = []
    for seed in range(number):
        counts = np.random.default_rng(seed).poisson(0.4, (size, len(genes))).astype(np.float32)
        cells = anndata.AnnData(sparse.csr_matrix(counts))
        cells.var_names = genes
        body = as_arrow(cells)
        head = ["POST /embed HTTP/1.1", "host: x", f"content-type: {ARROW}", f"accept: {ARROW}"]
        made.append("\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body)
    return made


class Client:
    """One connection, with as little work per request as possible."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> tuple[float, float]:
        """Send a request. Returns the seconds in total, and the part of them on the device."""
        started = time.perf_counter()
        self._socket.sendall(request)
        status = self._file.readline()
        length, device = 0, 0.0
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"server-timing" and (found := re.search(rb"inference;dur=([\d.]+)", value)):
                device = float(found[1]) / 1000
        self._file.read(length)
        assert b" 200 " in status, status
        return time.perf_counter() - started, device


def rate(services: list[Process], clients: int, seconds: float) -> float:
    """Cells per second, measured after the first second."""
    requests = requests_of(REQUEST_CELLS, 8)
    done = [0] * clients
    over = threading.Event()

    def ask(at: int) -> None:
        client = Client(services[at % len(services)].url)
        while not over.is_set():
            client.ask(requests[at % len(requests)])
            done[at] += REQUEST_CELLS

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    before, started = sum(done), time.perf_counter()
    time.sleep(seconds)
    found = (sum(done) - before) / (time.perf_counter() - started)
    over.set()
    for thread in threads:
        thread.join()
    return found


def cpu_seconds(processes: list[Process]) -> float:
    """CPU seconds used so far, including children."""
    total = 0.0
    for process in processes:
        family = [psutil.Process(process.process.pid)]
        family += family[0].children(recursive=True)
        total += sum(sum(one.cpu_times()[:2]) for one in family)
    return total


def scaling(folder: Path, sleep: float, seconds: float) -> None:
    """Print one line per number of workers."""
    bare = BATCH_CELLS / sleep
    print(f"a batch of {BATCH_CELLS} cells takes {sleep:g} s, so the bare session computes {bare:.0f} cells/s\n")
    print("| workers | cells/s | of the bare rate | times one worker | CPU of services | CPU of workers |")
    print("|---|---|---|---|---|---|")
    with cluster(folder / "embedded") as made:
        service = made.start("serve", redis_url=NO_REDIS, sleep=str(sleep))
        at_first, started = cpu_seconds([service]), time.perf_counter()
        found = rate([service], 16, seconds)
        share = (cpu_seconds([service]) - at_first) / (time.perf_counter() - started)
        print(f"| embedded, without Redis | {found:.0f} | {found / bare:.1%} | | {share:.2f} | |", flush=True)
    with cluster(folder / "redis") as made:
        services = made.services(2)
        workers: list[Process] = []
        one = 0.0
        for number in (1, 2, 8):
            while len(workers) < number:
                workers.append(made.start("worker", wait=False, sleep=str(sleep)))
            ready(workers)
            before, started = [cpu_seconds(services), cpu_seconds(workers)], time.perf_counter()
            # Twice as much as the workers hold at once: a running batch, and one formed ahead.
            found = rate(services, max(16, 2 * 2 * number * BATCH_CELLS // REQUEST_CELLS), seconds)
            took = time.perf_counter() - started
            shares = [(cpu_seconds(group) - was) / took for group, was in zip((services, workers), before, strict=True)]
            one = one or found
            print(
                f"| {number} | {found:.0f} | {found / (number * bare):.1%} | {found / one:.2f} | {shares[0]:.2f} "
                f"| {shares[1]:.2f} |",
                flush=True,
            )


def ready(workers: list[Process]) -> None:
    for worker in workers:
        worker.wait_until_ready()


def latency(folder: Path) -> None:
    """Latency of single cells through an idle queue, with and without Redis."""
    print("\n| one cell, one client | p50 ms | p99 ms | on the device, p50 |\n|---|---|---|---|")
    requests = requests_of(1, 64)
    with cluster(folder) as made:
        for name, redis in (("embedded", False), ("through Redis", True)):
            process = serving(made, redis)
            client = Client(process.url)
            for request in requests:
                client.ask(request)
            replies = [client.ask(requests[at % 64]) for at in range(500)]
            added = [1000 * (total - device) for total, device in replies]
            device = statistics.median(1000 * device for _, device in replies)
            print(
                f"| {name} | {np.quantile(added, 0.5):.2f} | {np.quantile(added, 0.99):.2f} | {device:.2f} |",
                flush=True,
            )


def serving(made: Cluster, redis: bool) -> Process:
    """A ready service, with a worker connected by Redis or with its own device."""
    if not redis:
        return made.start("serve", redis_url=NO_REDIS)
    (service,) = made.services()
    made.start("worker")
    wait_until(lambda: service.wait_until_ready() is not None)
    return service


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sleep", type=float, default=0.5, help="seconds per batch")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds per measurement")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        scaling(Path(folder) / "scaling", options.sleep, options.seconds)
        latency(Path(folder) / "latency")


if __name__ == "__main__":
    main()
