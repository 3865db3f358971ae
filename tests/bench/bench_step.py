"""Seconds and memory of a training step of stage 1, by preset and by how the batch is cut into parts.

On random cells, on the GPU where there is one; the start (singular vectors, yardsticks) is no part of it. Run it alone:

    PYTHONPATH=. python tests/bench/bench_step.py [--preset mini --batch 128 --steps 5 --accumulate 1 4 --set bf16=true]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from model.config import PRESETS, preset
from tests.bench.bench_loader import write_corpus
from training.config import Stage1Config, override
from training.corpus import Corpus
from training.run import pick_device
from training.stage1 import Stage1Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="mini")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--genes", type=int, default=28373)
    parser.add_argument("--set", action="append", default=[], help="key=value, an option of stage 1")
    args = parser.parse_args()
    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", 512, 1000, args.genes)
        corpus = Corpus(Path(folder) / "corpus")
        print(f"{args.preset}, {device}, {torch.get_num_threads()} threads, batch {args.batch}, 1,000 genes a cell")
        print(f"{'accumulate':>10} {'s a step':>9} {'cells/s':>8} {'MiB at the peak':>16}")
        for accumulate in sorted(args.accumulate, reverse=True):  # the peak of a process only grows
            config = Stage1Config(
                batch_size=args.batch, accumulate=accumulate, steps=args.steps + 1, quantizer_start=0.0, workers=1
            )
            config = override(config, dict(pair.split("=", 1) for pair in args.set))
            trainer = Stage1Trainer(corpus, preset(args.preset, corpus.num_genes), config, device)
            trainer.train_step()
            start = time.perf_counter()
            for _ in range(args.steps):
                trainer.train_step()
            seconds = (time.perf_counter() - start) / args.steps
            trainer.close()
            on_gpu = device.type == "cuda"
            peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak()
            print(f"{accumulate:10} {seconds:9.2f} {args.batch / seconds:8.0f} {peak:16,.0f}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
