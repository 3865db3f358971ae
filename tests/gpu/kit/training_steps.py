"""Steps of training, each in a process with a time limit: `tests/bench/bench_step.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tests.gpu.kit.report import Report
from tests.training.random_corpus import write_random_corpus

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Steps:
    """What is measured.

    Attributes:
        presets: names. batch: cells a step. steps: timed ones. genes: of the corpus.
        variants: settings of the stages, one set after the other. seconds: most for each preset and stage.
    """

    presets: tuple[str, ...]
    batch: int
    steps: int
    genes: int
    variants: tuple[tuple[str, ...], ...]
    seconds: float


def measure_steps(report: Report, steps: Steps, wanted: dict[str, float]) -> None:
    """Add a line for each variant, preset and stage. ``wanted``: cells per second by preset."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_random_corpus(corpus, 4 * steps.batch + 64, 1000 if steps.genes > 4000 else 200, steps.genes)
        for settings, preset, stage in product(steps.variants, steps.presets, (1, 2)):
            case = {
                "corpus": str(corpus),
                "preset": preset,
                "stage": stage,
                "accumulate": 1,
                "batch": steps.batch,
                "steps": steps.steps,
                "workers": 1,
                "set": list(settings),
            }
            _measure(report, steps, case, wanted.get(preset))


def _measure(report: Report, steps: Steps, case: dict[str, object], wanted: float | None) -> None:
    settings = case["set"]
    assert isinstance(settings, list)
    name = ", ".join([f"{case['preset']}, stage {case['stage']}, batches of {steps.batch}", *settings])
    command = [sys.executable, "tests/bench/bench_step.py", "--case", json.dumps(case)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=min(steps.seconds, max(1.0, report.seconds_left)),
            check=True,
        )
    except subprocess.CalledProcessError as error:
        why = error.stderr.strip().splitlines()[-1:] or ["no message"]
        report.add("training_failed", name, None, note=f"failed: {why[0][:200]}")
        return
    except subprocess.TimeoutExpired:
        report.add("training_failed", name, None, note="stopped: it took too long")
        return
    row = json.loads(done.stdout.strip().splitlines()[-1])
    rate = steps.batch / row["seconds"]
    flop = row["flop"] / steps.batch
    share = rate * flop / row["device_rate"]
    report.add(
        "training_cells_per_second",
        name,
        rate,
        "cells/s",
        predicted=row["device_rate"] / flop,
        wanted=wanted,
        note=f"{share:.1%} of the matrix product, {row['mib']:,.0f} MiB, {flop / 1e9:.2f} GFLOP a cell",
    )
