"""Send mixed requests for some time, and show the memory of the service over that time as a table and a picture.

Bodies of 1 to 500 cells in JSON, Arrow and h5ad go to /embed, /pathways, /impute and /ic50, some of them malformed, at
a steady rate with many in flight. A slope is fitted to the second half; a leak shows as a constant slope.

    PYTHONPATH=. python tests/bench/soak.py [--minutes 20 --rate 4 --picture soak.png]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import anndata
import httpx
import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped, unused-ignore]
from scipy import sparse

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from tests.bench.bench_service import as_h5ad, as_json
from tests.bench.bench_start import free_port, ready
from tests.bench.service import ARROW, H5AD, JSON, as_arrow

SIZES = (1, 1, 3, 8, 64, 64, 200, 500)
PATHS = ("/embed", "/embed", "/embed", "/pathways", "/impute?genes=CD3D,NKG7", "/ic50?drugs=Cisplatin")
SAMPLE_SECONDS = 5.0


def make_bodies() -> list[tuple[str, bytes]]:
    """Media type and bytes of bodies of all sizes in all formats."""
    random = np.random.default_rng(0)
    genes = Bundle.load(DEFAULT_BUNDLE).vocabulary.symbols[:12_000]
    bodies = []
    for size in sorted(set(SIZES)):
        counts = random.poisson(random.gamma(0.1, 1.0, len(genes)), (size, len(genes)))
        cells = anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32), var=pd.DataFrame(index=genes))
        bodies += [(JSON, as_json(cells)), (ARROW, as_arrow(cells)), (H5AD, as_h5ad(cells))]
    return bodies


async def load(url: str, bodies: list[tuple[str, bytes]], minutes: float, rate: float) -> Counter[str]:
    """Start requests at random times, even if earlier ones are unanswered. Returns the number of each status."""
    random, seen = np.random.default_rng(1), Counter[str]()
    waiting: set[asyncio.Task[None]] = set()
    weights = np.array([len(body) ** -0.35 for _, body in bodies])
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=64)) as client:

        async def ask(path: str, kind: str, body: bytes) -> None:
            try:
                answer = await client.post(path, content=body, headers={"Content-Type": kind})
                seen[f"{answer.status_code}"] += 1
            except httpx.HTTPError as error:
                seen[type(error).__name__] += 1

        ends = time.monotonic() + 60 * minutes
        while time.monotonic() < ends:
            kind, body = bodies[int(random.choice(len(bodies), p=weights / weights.sum()))]
            if random.random() < 0.05:
                body = body[: len(body) // 2]
            task = asyncio.create_task(ask(str(random.choice(PATHS)), kind, body))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            await asyncio.sleep(random.exponential(1 / rate))
        await asyncio.gather(*waiting)
    return seen


async def watch(process: psutil.Process, samples: list[tuple[float, float]], began: float) -> None:
    """Record minutes and megabytes (unique set size of the server and its parsers) until cancelled."""
    while True:
        try:
            family = [process, *process.children(recursive=True)]
            samples.append(((time.monotonic() - began) / 60, sum(one.memory_full_info().uss for one in family) / 1e6))
        except psutil.NoSuchProcess:
            pass  # a parser that was replaced meanwhile
        await asyncio.sleep(SAMPLE_SECONDS)


async def run(url: str, process: psutil.Process, minutes: float, rate: float) -> tuple[Counter[str], np.ndarray]:
    bodies = make_bodies()
    samples: list[tuple[float, float]] = []
    watcher = asyncio.create_task(watch(process, samples, time.monotonic()))
    seen = await load(url, bodies, minutes, rate)
    watcher.cancel()
    return seen, np.array(samples)


def draw(samples: np.ndarray, slope: float, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3), constrained_layout=True)
    axis.plot(samples[:, 0], samples[:, 1], linewidth=1)
    axis.set(xlabel="minutes", ylabel="MB, server and parsers", ylim=(0, None))
    axis.set_title(f"Memory under mixed requests; second half: {slope:+.1f} MB an hour", fontsize=10)
    figure.savefig(out, dpi=100)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=20)
    options.add_argument("--rate", type=float, default=4.0, help="requests per second")
    options.add_argument("--picture", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="scpalm-soak-") as folder:
        port = free_port()
        environment = os.environ | {"SCPALM_PORT": str(port), "SCPALM_RESULTS_DIR": f"{folder}/jobs"}
        server = subprocess.Popen(
            [sys.executable, "-m", "scpalm.app.cli", "serve"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not ready(port):
                time.sleep(0.1)
            url, process = f"http://127.0.0.1:{port}", psutil.Process(server.pid)
            seen, samples = asyncio.run(run(url, process, asked.minutes, asked.rate))
        finally:
            server.terminate()
            server.wait(60)
    half = samples[samples[:, 0] > asked.minutes / 2]
    slope = 60 * float(np.polyfit(half[:, 0], half[:, 1], 1)[0])
    print(f"answers: {dict(seen)}")
    for minute in range(0, int(asked.minutes) + 1, max(1, int(asked.minutes) // 10)):
        near = samples[np.abs(samples[:, 0] - minute).argmin()]
        print(f"minute {near[0]:5.1f}: {near[1]:7.1f} MB")
    print(f"second half: {half[:, 1].min():.1f} to {half[:, 1].max():.1f} MB, slope {slope:+.2f} MB an hour")
    if asked.picture is not None:
        draw(samples, slope, asked.picture)


if __name__ == "__main__":
    main()
