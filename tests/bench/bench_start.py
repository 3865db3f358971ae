"""Time from the start of `scpalm serve` to the first 200 of /health/ready, and memory before the first request.

Memory is the unique set size of the server and its parser processes, without the pages that they share. Run it on an
idle machine:

    PYTHONPATH=. python tests/bench/bench_start.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import psutil  # type: ignore[import-untyped, unused-ignore]

LONGEST_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def start(folder: str) -> tuple[float, float, float]:
    """Seconds until ready, and megabytes two seconds later (unique set size; resident size of the server process)."""
    port = free_port()
    environment = os.environ | {"SCPALM_PORT": str(port), "SCPALM_RESULTS_DIR": folder}
    began = time.monotonic()
    server = subprocess.Popen(
        [sys.executable, "-m", "scpalm.app.cli", "serve"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not ready(port):
            if server.poll() is not None or time.monotonic() - began > LONGEST_SECONDS:
                raise SystemExit("The server did not become ready.")
            time.sleep(0.02)
        seconds = time.monotonic() - began
        time.sleep(2)
        process = psutil.Process(server.pid)
        family = [process, *process.children(recursive=True)]
        unique = sum(one.memory_full_info().uss for one in family) / 1e6
        return seconds, unique, process.memory_info().rss / 1e6
    finally:
        server.terminate()
        server.wait(30)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    repeats = options.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="scpalm-bench-") as folder:
        found = [start(folder) for _ in range(repeats)]
    print(f"{'':32}{'median':>10}{'least':>10}{'most':>10}{'target':>10}")
    rows = (
        ("start to ready, s", 0, 5.0),
        ("idle, MB, all processes (USS)", 1, 500.0),
        ("idle, MB, server (RSS)", 2, 500.0),
    )
    for name, column, target in rows:
        values = [one[column] for one in found]
        print(f"{name:32}{statistics.median(values):10.1f}{min(values):10.1f}{max(values):10.1f}{target:10.1f}")


if __name__ == "__main__":
    main()
