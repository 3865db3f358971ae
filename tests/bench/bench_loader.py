"""Loading speed of a corpus: batches of 128 cells with 2,000 expressed genes each, from disk.

The last rows are what the stages of training read; `bench_step.py` compares that with the speed of a step.

Writes a corpus of random cells (0.5 GB by default) to a temporary folder. "cold" means that the files were dropped from
the page cache before. Run it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_loader.py [--cells 32768 --expressed 2000 --genes 28373 --workers 2 8]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.batches import Feed, ThinnedCells, WholeCells
from scpalm.training.data.code_views import Stage2Batch, Stage2Batches
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import Stage1Config, Stage2Config
from scpalm.training.runs.memory import keep_freed_memory
from tests.training.random_corpus import write_random_corpus

BATCH = 128


def drop_from_cache(path: Path) -> None:
    """Ask the system to drop the shards from the page cache."""
    for file in path.glob("shard-*/*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cells_per_second(batch: Callable[[int], object], steps: int) -> tuple[float, float]:
    """Cells per second of wall time, and per second of CPU time of this process."""
    for step in range(8):
        batch(step)
    start, busy = time.perf_counter(), time.process_time()
    for step in range(8, 8 + steps):
        batch(step)
    done = steps * BATCH
    return done / (time.perf_counter() - start), done / (time.process_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=32768)
    parser.add_argument("--expressed", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=28373)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the commands do
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus"
        write_random_corpus(path, args.cells, args.expressed, args.genes)
        warm = Corpus(path)
        for step in range(100):  # the files into the system's cache, memory into the process
            warm.batch(np.random.default_rng(step).integers(8, args.cells, BATCH))
        size = sum(file.stat().st_size for file in path.rglob("*.npy")) / 1e9
        print(f"{args.cells:,} cells of {args.expressed:,} genes, {size:.2f} GB, batches of {BATCH}")
        print(f"{'':44} {'cells/s':>9} {'cells/s of CPU time':>24}")
        for name, block, thinned, cold, workers in (
            ("cell by cell, cached", 1, False, False, 0),
            ("cell by cell, cold", 1, False, True, 0),
            ("blocks of 64, cached", 64, False, False, 0),
            ("blocks of 64, cold", 64, False, True, 0),
            ("half of the cells thinned, cached", 64, True, False, 0),
            *((f"stage 1, {number} workers", 64, True, False, number) for number in args.workers),
        ):
            if cold:
                drop_from_cache(path)
            corpus = Corpus(path)
            config = Stage1Config(batch_size=BATCH, block=block, workers=workers, steps=args.steps + 8)
            sampler = Sampler(corpus, power=1.0, seed=0, block=block)
            kind = ThinnedCells if thinned else WholeCells
            feed: Feed[object] = Feed(kind(corpus, sampler, config, [slice(0, BATCH)]), config.steps, workers)
            clock, busy = cells_per_second(feed.at, args.steps)
            feed.close()
            show(name, clock, busy if not workers else None)
        stage2 = Stage2Config(batch_size=BATCH, block=64, steps=args.steps + 8, replicas=4)
        for workers in (0, *args.workers):
            corpus = Corpus(path)
            whole = WholeCells(corpus, Sampler(corpus, power=1.0, seed=0, block=64), stage2, [slice(0, BATCH)])
            views: Feed[Stage2Batch] = Feed(Stage2Batches(whole, stage2, 256), stage2.steps, workers)
            clock, busy = cells_per_second(views.at, args.steps)
            views.close()
            name = f"stage 2, {workers} workers" if workers else "stage 2: whole cells and views, cached"
            show(name, clock, busy if not workers else None)


def show(name: str, clock: float, busy: float | None) -> None:
    of_a_core = "-" if busy is None else f"{busy:,.0f}"
    print(f"{name:44} {clock:9,.0f} {of_a_core:>24}", flush=True)


if __name__ == "__main__":
    main()
