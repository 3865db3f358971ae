"""Mixed requests for some time, with faults, and the memory, files and threads of the service over that time.

Bodies of 1 to 500 cells in JSON, Arrow and h5ad go to all kinds of routes at a steady rate; 5 % are malformed, and 5 %
are jobs. The model is swapped every five minutes. With ``--redis``, requests go through a queue in Redis to two
workers, and one of them is killed every ten minutes. Prints a table; a slope is fitted to the second half.

    PYTHONPATH=. python tests/bench/soak.py [--minutes 60 --rate 4 --redis --picture soak.png]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]

from scpalm.model.bundle import DEFAULT_BUNDLE
from tests.bench.soak_load import Counts, Load
from tests.e2e.conftest import Server
from tests.redis_server import RedisServer

SAMPLE_SECONDS = 5.0
MEASURED = ("memory, MB", "open files", "threads")
VERSIONS = ("soak-1", "soak-2")


@dataclass
class Site:
    """The processes. ``workers`` and ``redis`` are empty for one process that does everything."""

    folder: Path
    service: Server
    workers: list[Server] = field(default_factory=list)
    redis: RedisServer | None = None
    num_swaps: int = 0
    num_kills: int = 0

    def worker(self, number: int) -> Server:
        """Start a worker."""
        assert self.redis is not None
        log = self.folder / f"worker{number}.log"
        return Server(log, command="worker", redis_url=self.redis.url, **settings(self.folder)).wait_until_listening()

    def swap(self) -> None:
        """Switch the link of the served model to the other version."""
        link = self.folder / "next"
        link.symlink_to(VERSIONS[(self.num_swaps + 1) % 2])
        link.replace(self.folder / "current")
        self.num_swaps += 1

    def kill_worker(self) -> None:
        """kill -9 of one worker, and the start of another."""
        victim = self.workers.pop(0)
        victim.process.kill()
        victim.process.wait()
        self.num_kills += 1
        self.workers.append(self.worker(1 + self.num_kills))


def settings(folder: Path) -> dict[str, str]:
    """Settings of all processes."""
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    return {"bundle": str(folder / "current"), "spool_dir": str(shared), "results_dir": str(shared / "jobs")}


@contextmanager
def site(*, redis: bool) -> Iterator[Site]:
    """The processes, with two versions of the packaged model and a link to the first."""
    with tempfile.TemporaryDirectory(prefix="scpalm-soak-") as name:
        folder = Path(name)
        for version in VERSIONS:
            shutil.copytree(DEFAULT_BUNDLE, folder / version)
            manifest = folder / version / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": version}))
        (folder / "current").symlink_to(VERSIONS[0])
        server = RedisServer(folder / "redis").start() if redis else None
        url = {"redis_url": server.url} if server is not None else {}
        made = Site(folder, Server(folder / "service.log", **settings(folder), **url), redis=server)
        try:
            if server is not None:
                made.workers = [made.worker(number) for number in range(2)]
            made.service.wait_until_ready()
            yield made
        finally:
            for process in (made.service, *made.workers):
                process.process.terminate()
                process.process.wait(90)
            if server is not None:
                server.stop()


def measure(process: psutil.Process) -> tuple[float, float, float]:
    """Unique memory in MB, open files and threads of a process and its children."""
    family = [process, *process.children(recursive=True)]
    memory = sum(one.memory_full_info().uss for one in family) / 1e6
    return memory, sum(one.num_fds() for one in family), sum(one.num_threads() for one in family)


async def watch(process: psutil.Process, samples: list[tuple[float, ...]]) -> None:
    """Record minutes and `measure` until cancelled."""
    began = time.monotonic()
    while True:
        with suppress(psutil.NoSuchProcess):  # a parser that was replaced meanwhile
            samples.append(((time.monotonic() - began) / 60, *measure(process)))
        await asyncio.sleep(SAMPLE_SECONDS)


async def every(minutes: float, action: object) -> None:
    """Call ``action`` again and again, in a thread."""
    assert callable(action)
    for _ in itertools.count():
        await asyncio.sleep(60 * minutes)
        await asyncio.to_thread(action)


async def run(made: Site, options: argparse.Namespace) -> tuple[Counts, np.ndarray]:
    """Send, break and watch. Returns the counts and the samples ``[time, 1 + measured]``."""
    load = Load(made.service.url, options.rate)
    samples: list[tuple[float, ...]] = []
    others = [watch(psutil.Process(made.service.process.pid), samples), every(options.swap_minutes, made.swap)]
    if made.redis is not None:
        others.append(every(options.kill_minutes, made.kill_worker))
    tasks = [asyncio.create_task(other) for other in others]
    await load.run(options.minutes)
    for task in tasks:
        task.cancel()
    return load.counts, np.array(samples)


def slopes(samples: np.ndarray) -> list[float]:
    """Change an hour of each measured quantity, over the second half."""
    half = samples[samples[:, 0] > samples[-1, 0] / 2]
    return [60 * float(np.polyfit(half[:, 0], half[:, column], 1)[0]) for column in range(1, samples.shape[1])]


def draw(samples: np.ndarray, title: str, out: Path) -> None:
    """Draw the three quantities over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(7, 5.5), sharex=True, constrained_layout=True)
    for column, (axis, label, slope) in enumerate(zip(axes, MEASURED, slopes(samples), strict=True), start=1):
        axis.plot(samples[:, 0], samples[:, column], linewidth=1)
        axis.set(ylabel=label, ylim=(0, 1.15 * samples[:, column].max()))
        axis.set_title(f"second half: {slope:+.1f} an hour", fontsize=8, loc="right")
    axes[-1].set_xlabel("minutes")
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, dpi=100)


def report(made: Site, counts: Counts, samples: np.ndarray) -> None:
    """Print what happened."""
    print(f"answers: {dict(sorted(counts.answers.items()))}; slowest {counts.slowest:.1f} s")
    print(f"refused: {dict(counts.refusals)}")
    print(f"models: {dict(counts.versions)}, {made.num_swaps} swaps; {made.num_kills} workers killed")
    print(f"lost: {len(counts.lost)}; wrong answers: {len(counts.wrong)}")
    print(*(counts.lost + counts.wrong)[:10], sep="\n")
    print("| minute | " + " | ".join(MEASURED) + " |\n|---|---|---|---|")
    for minute in np.linspace(0, samples[-1, 0], 11):
        near = samples[np.abs(samples[:, 0] - minute).argmin()]
        print(f"| {near[0]:.0f} | {near[1]:.0f} | {near[2]:.0f} | {near[3]:.0f} |")
    print("| second half, an hour | " + " | ".join(f"{slope:+.1f}" for slope in slopes(samples)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--redis", action="store_true", help="two workers and a queue in Redis")
    parser.add_argument("--swap-minutes", type=float, default=5)
    parser.add_argument("--kill-minutes", type=float, default=10)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with site(redis=options.redis) as made:
        counts, samples = asyncio.run(run(made, options))
    report(made, counts, samples)
    if options.picture is not None:
        how = "through Redis" if options.redis else "one process"
        draw(samples, f"{options.minutes:.0f} minutes of mixed requests, {how}", options.picture)
    sys.exit(1 if counts.lost or counts.wrong else 0)


if __name__ == "__main__":
    main()
