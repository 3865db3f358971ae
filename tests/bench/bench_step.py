"""Cells per second of a training step and of the loader that feeds it, by preset, stage and gradient accumulation.

Uses random cells and, for stage 2, random codes, on the GPU if there is one. Each row runs in a new process. The loader
is measured alone: batches read by ``--workers`` processes and copied to the device, without a step. Training runs at
the lower of the two rates. "of the device": FLOP/s of the step (matrix products and attention, forward and backward, as
counted by PyTorch) relative to one large matrix product in the same process, in bf16 on a GPU and float32 on a CPU. Run
it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_step.py [--preset mini base --batch 128 --accumulate 1 4 --set bf16=true]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from scpalm.model.network.config import PRESETS, NetworkConfig, preset
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage1Config, Stage2Config, override
from scpalm.training.runs.memory import keep_freed_memory
from scpalm.training.runs.run import pick_device
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.stages.code_cache import CodeCache
from scpalm.training.stages.corpus_statistics import Yardsticks, gene_means
from scpalm.training.stages.stage1 import Stage1Trainer
from scpalm.training.stages.stage2 import Stage2Trainer
from tests.training.random_corpus import write_random_corpus

# First step that the loader is measured at; the trainer does not reach it.
LOADER_FIRST = 10_000


def make_trainer(corpus: Corpus, case: dict[str, Any], device: torch.device) -> StageTrainer[Any]:
    common = {
        "batch_size": case["batch"],
        "accumulate": case["accumulate"],
        "steps": LOADER_FIRST + loader_steps(case)[1],
        "workers": case["workers"],
    }
    settings = dict(pair.split("=", 1) for pair in case["set"])
    sizes = preset(case["preset"], corpus.num_genes)
    if case["stage"] == 1:
        return Stage1Trainer(corpus, sizes, override(Stage1Config(**common, quantizer_start=0.0), settings), device)
    config = override(Stage2Config(**common, replicas=1, linear_start=False, queue_start=128), settings)
    return Stage2Trainer(corpus, *made_up(corpus, sizes, config, device))


def made_up(
    corpus: Corpus, sizes: NetworkConfig, config: Stage2Config, device: torch.device
) -> tuple[PathwayAutoencoder, Stage2Config, torch.device, CodeCache, Yardsticks]:
    """Write a stage 1 checkpoint with random weights, and random codes."""
    random = np.random.default_rng(0)
    codes = random.integers(sizes.num_codes, size=(1, len(corpus), sizes.num_tokens), dtype=np.uint8)
    scores = random.standard_normal((1, len(corpus), sizes.num_tokens), dtype=np.float32)
    vectors = np.eye(corpus.num_genes, sizes.num_tokens, dtype=np.float32)
    yardsticks = Yardsticks(corpus, gene_means(corpus, corpus.train_rows), vectors)
    return PathwayAutoencoder(sizes), config, device, CodeCache(codes, scores), yardsticks


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Measure ``seconds`` per step, peak memory ``mib``, ``flop`` per step, and ``device_rate`` in FLOP/s."""
    keep_freed_memory()
    device = pick_device("auto")
    trainer = make_trainer(Corpus(case["corpus"]), case, device)
    trainer.train_step()
    with FlopCounterMode(display=False) as counter:
        trainer.train_step()
    wait(device)
    start = time.perf_counter()
    for _ in range(case["steps"]):
        trainer.advance()
    trainer.read()
    wait(device)
    seconds = (time.perf_counter() - start) / case["steps"]
    loaded = loader_rate(trainer, case, device)
    trainer.close()
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    flop = float(counter.get_total_flops())
    figures = {"seconds": seconds, "mib": peak / 2**20, "flop": flop, "device_rate": device_rate(device)}
    return figures | {"loader_rate": loaded}


def loader_steps(case: dict[str, Any]) -> tuple[int, int]:
    """Batches that the loader reads: those that its workers read ahead at first, and all of them."""
    ahead = 8 * case["workers"] + 2
    return ahead, ahead + max(4096 // case["batch"], 8)


def loader_rate(trainer: StageTrainer[Any], case: dict[str, Any], device: torch.device) -> float:
    """Cells per second of the trainer's batches on the device, without steps."""
    feed = trainer._feed  # type: ignore[attr-defined]
    ahead, steps = loader_steps(case)
    start = 0.0
    for step in range(steps):
        if step == ahead:
            wait(device)
            start = time.perf_counter()
        feed.at(LOADER_FIRST + step)
    wait(device)
    return float(case["batch"] * (steps - ahead) / (time.perf_counter() - start))


def device_rate(device: torch.device) -> float:
    """FLOP/s of a large matrix product (median of 9)."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / float(np.median(times[1:]))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), nargs="+", default=["mini"])
    parser.add_argument("--stage", type=int, choices=[1, 2], nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--genes", type=int, default=28373)
    parser.add_argument("--workers", type=int, default=1, help="processes that read batches")
    parser.add_argument("--set", action="append", default=[], help="key=value, an option of the stages")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(json.loads(args.case))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random_corpus(Path(folder) / "corpus", 512, 1000, args.genes)
        print(
            f"{pick_device('auto')}, {torch.get_num_threads()} threads, batch {args.batch}, 1,000 genes a cell, "
            f"loader with {args.workers} workers"
        )
        print(
            f"{'preset':7} {'stage':>5} {'accumulate':>10} {'s a step':>9} {'cells/s':>8} {'loader':>8} {'MiB':>7} "
            f"{'GFLOP a cell':>13} {'GFLOP/s':>9} {'of the device':>14}"
        )
        cases = [(p, s, a) for p in args.preset for s in args.stage for a in args.accumulate]
        for name, stage, accumulate in cases:
            case = {
                "corpus": f"{folder}/corpus",
                "preset": name,
                "stage": stage,
                "accumulate": accumulate,
                "batch": args.batch,
                "steps": args.steps,
                "workers": args.workers,
                "set": args.set,
            }
            done = subprocess.run(
                [sys.executable, __file__, "--case", json.dumps(case)], stdout=subprocess.PIPE, text=True, check=True
            )
            row = json.loads(done.stdout)
            rate = row["flop"] / row["seconds"]
            print(
                f"{name:7} {stage:5} {accumulate:10} {row['seconds']:9.2f} {args.batch / row['seconds']:8.0f} "
                f"{row['loader_rate']:8,.0f} {row['mib']:7,.0f} "
                f"{row['flop'] / args.batch / 1e9:13.2f} {rate / 1e9:9.0f} "
                f"{rate / row['device_rate']:14.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
