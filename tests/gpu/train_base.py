"""Train a preset on a packed corpus for some minutes: stage 1, stage 2, then the served decoder.

    python -m tests.gpu.pack_corpus CORPUS PACKED.npz
    python -m tests.gpu.train_base --minutes 8 --corpus PACKED.npz --out OUT [--work WORK] [--preset base]
    python -m tests.gpu.train_base --small                        # rehearsal on random cells, about a minute on a CPU

It stops by the clock, also in the middle of a stage. Call it again with the same --work to go on: it holds the corpus
and full checkpoints. OUT gets the weights in float16, in parts of at most 16 MiB, and `report.json`. Without WORK, as
on another machine, `--from OUT` goes on from these weights; the optimizer and the queue of stage 2 start again.

At home (`tests.gpu.join_run` verifies the checksums and makes a run of the parts):

    python -m tests.gpu.join_run OUT RUN --corpus CORPUS
    scpalm-train views RUN
    scpalm-train export RUN --out BUNDLE --precision float16
    scpalm-train evaluate all CELLS.h5ad ... --bundle BUNDLE --out TABLES

It needs PyTorch, NumPy, SciPy, pandas, pyarrow and safetensors only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from scpalm.model.network.config import PRESETS, preset
from scpalm.training.corpus.packed import unpack_corpus
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import OptimizerConfig, Stage1Config, Stage2Config, as_dict, override, split_settings
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.memory import keep_freed_memory
from scpalm.training.runs.portable import read_parts, restore_run, weights_of, write_parts
from scpalm.training.runs.run import Run, pick_device
from scpalm.training.stages.by_clock import ClockedLoop, Deadlines
from scpalm.training.stages.clocked_stages import make_trainer, resume

# Share of the time of each stage, in their order.
SHARES = {"stage1": 0.5, "stage2": 0.3, "decoder": 0.2}
# Steps are planned from the speed; this only bounds them.
MANY = 10_000_000
# `base` with the code width of the paper's text, D, has 16.8 M weights more, and its bundle 92 MB in float16.
CODE_WIDTH = 4
# Of a cell in a batch: its measured genes, and counts and values of 2,000 genes, thinned and whole.
CELL_BYTES = 80_000
# Share of a call that is kept for writing the parts.
RESERVE = 0.03
# A stage with less than this share of the planned time left after a call ends with the call.
NEARLY = 0.03


@dataclass(frozen=True)
class Options:
    """One call.

    Attributes:
        minutes: of this call. plan_minutes: of all calls together, for which the schedules are made.
        packed: the corpus. out: the folder for the parts. work: the folder for the corpus and full checkpoints.
        weights: parts to go on from if ``work`` has no run. network: sizes. settings: ``key=value`` of the stages.
    """

    minutes: float
    plan_minutes: float
    packed: Path
    out: Path
    work: Path
    network: str = "base"
    device: str = "auto"
    weights: Path | None = None
    settings: tuple[str, ...] = ()
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Clock:
    """Seconds that earlier calls took: all together, and of training each stage."""

    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """The open corpus and run of one call, and its clock."""

    options: Options
    corpus: Corpus
    run: Run
    device: torch.device
    start: float
    clock: Clock

    @property
    def end(self) -> float:
        return self.start + self.options.minutes * 60 * (1 - RESERVE)

    def stage_end(self, stage: str) -> float:
        """When a stage ends, from now on: its share of the planned time that is left."""
        whole = self.options.plan_minutes * 60 * (1 - RESERVE)
        now = time.monotonic()
        left = max(whole - self.clock.seconds - (now - self.start), 0.0)
        names = list(SHARES)
        own = max(SHARES[stage] - self.clock.stages.get(stage, 0.0) / whole, 0.02)
        later = sum(SHARES[name] for name in names[names.index(stage) + 1 :])
        end = now + left * own / (own + later)
        # A call rarely takes exactly its minutes: a stage that would be left with seconds ends with the call.
        return self.end if self.end < end < self.end + NEARLY * whole else end


def configs(settings: dict[str, str], device: torch.device) -> dict[str, OptimizerConfig]:
    """Options of the stages. On a GPU: batches of 512 cells, and as many readers as cores and memory allow."""
    on_gpu = device.type == "cuda"
    batch_size = 512 if on_gpu else 64
    common: dict[str, Any] = {"steps": MANY, "batch_size": batch_size, "workers": readers(batch_size) if on_gpu else 0}
    made = {
        "stage1": Stage1Config(**common, lr=1e-3),
        "stage2": Stage2Config(**common, lr=5e-4),
        "decoder": DecoderConfig(**common),
    }
    return {
        stage: override(config, {key: value for key, value in settings.items() if hasattr(config, key)})
        for stage, config in made.items()
    }


def readers(batch_size: int) -> int:
    """Processes that read batches: two cores are left over, and half of the shared memory.

    Each reader keeps four batches in shared memory, which is small in some containers.
    """
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    return max(min((os.cpu_count() or 1) - 2, 12, int(free / 2 / (4 * batch_size * CELL_BYTES))), 0)


def open_call(options: Options) -> Call:
    """Unpack the corpus and make or find the run."""
    start = time.monotonic()
    device = pick_device(options.device)
    folder, run = options.work / "corpus", Run(options.work / "run")
    corpus = Corpus(folder) if folder.exists() else unpack_corpus(options.packed, folder)
    say(start, f"{len(corpus):,} cells, {corpus.num_genes:,} genes on {device}")
    if not (run.path / "config.json").exists():
        if options.weights is not None:
            restore_run(read_parts(options.weights), run)
        else:
            sizes = {"code_width": CODE_WIDTH} | options.sizes
            network = replace(preset(options.network, corpus.num_genes), **sizes)
            for_network, *for_stages = split_settings(options.settings, network, Stage1Config(), Stage2Config())
            network = override(network, for_network)
            rest = {key: value for settings in for_stages for key, value in settings.items()}
            stages = {stage: as_dict(config) for stage, config in configs(rest, device).items()}
            run.create({"preset": options.network, "network": network.as_dict()} | stages)
        run.save_config(run.config() | {"corpus": str(folder.resolve()), "corpus_digest": corpus.digest})
    clock = options.work / "clock.json"
    used = Clock(**json.loads(clock.read_text())) if clock.exists() else Clock()
    return Call(options, corpus, run, device, start, used)


def train(options: Options) -> dict[str, Any]:
    """Train until the time is over, and write the parts; returns the report."""
    keep_freed_memory()
    call = open_call(options)
    report: dict[str, Any] = {"device": _name(call.device), "threads": torch.get_num_threads(), "finished": True}
    report["stages"] = {}
    for stage in SHARES:
        state = call.run.load_checkpoint(stage) if call.run.has_checkpoint(stage) else {}
        if state.get("ended"):
            continue
        report["stages"][stage], finished = train_stage(call, stage, state)
        # After each stage, so that a call that is killed in the next one leaves its weights.
        report["finished"] = finished and stage == list(SHARES)[-1]
        write_out(call, report)
        if not finished:
            break
    if not report["stages"]:  # all were finished before
        write_out(call, report)
    return report


def write_out(call: Call, report: dict[str, Any]) -> None:
    """Write the parts, the report and the time used."""
    files = write_parts(weights_of(call.run), call.options.out)
    report["mib"] = sum(file.stat().st_size for file in files) / 2**20
    seconds = time.monotonic() - call.start
    report["seconds"] = round(seconds, 1)
    used = replace(call.clock, seconds=call.clock.seconds + seconds)
    (call.options.work / "clock.json").write_text(json.dumps(asdict(used)))
    (call.options.out / "report.json").write_text(json.dumps(report, indent=1))
    say(
        call.start, f"{len(files)} files, {report['mib']:.1f} MiB in {call.options.out}; finished: {report['finished']}"
    )


def train_stage(call: Call, stage: str, state: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Train a stage as long as the clock allows; returns its figures, and whether it is finished."""
    began = time.monotonic()
    trainer = make_trainer(stage, call.corpus, call.run, call.device)
    if state:
        resume(trainer, state)
    first, prepared = trainer.step, time.monotonic()
    end = call.stage_end(stage)
    say(call.start, f"{stage}: {prepared - began:.1f} s to prepare, {end - prepared:.1f} s from step {first} on")
    shown = [prepared]
    last: dict[str, float] = {}

    def progress(step: int, scalars: dict[str, float]) -> None:
        last.update(scalars)
        if "held_out_mse" in scalars or time.monotonic() - shown[0] > 10:
            shown[0] = time.monotonic()
            text = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            say(call.start, f"{stage}: step {step} of {trainer.planned_steps}  {text}")

    finished = ClockedLoop(trainer, call.run, Deadlines(stage=end, call=call.end), progress).train()
    seconds = time.monotonic() - prepared
    call.clock.stages[stage] = call.clock.stages.get(stage, 0.0) + seconds
    cells = (trainer.step - first) * call.run.config()[stage]["batch_size"]
    memory = torch.cuda.max_memory_allocated() / 2**20 if call.device.type == "cuda" else 0.0
    return {
        "steps": trainer.step,
        "prepare_s": round(prepared - began, 1),
        "train_s": round(seconds, 1),
        "cells_per_s": round(cells / seconds, 1),  # with evaluations and checkpoints
        "gpu_mib": round(memory),
        "scalars": {name: round(value, 5) for name, value in last.items()},
    }, finished


def say(start: float, text: str) -> None:
    print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="of this call; default 8, with --small 1")
    parser.add_argument("--plan-minutes", type=float, help="of all calls together; default: --minutes")
    parser.add_argument("--corpus", type=Path, help="from tests.gpu.pack_corpus")
    parser.add_argument("--out", type=Path, help="folder for the parts")
    parser.add_argument("--work", type=Path, help="folder for corpus and checkpoints; default: OUT-work")
    parser.add_argument("--from", dest="weights", type=Path, help="folder of parts to go on from")
    parser.add_argument("--preset", choices=list(PRESETS), default="base")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], help="key=value of the network or the stages")
    parser.add_argument("--small", action="store_true", help="rehearsal on a CPU")
    args = parser.parse_args()
    if args.small:
        from tests.gpu.rehearse_train_base import rehearse

        rehearse(args.minutes or 1.0)
        return
    if args.corpus is None or args.out is None:
        parser.error("--corpus and --out are needed, or --small")
    minutes = args.minutes or 8.0
    work = args.work or args.out.with_name(args.out.name + "-work")
    plan = args.plan_minutes or minutes
    train(Options(minutes, plan, args.corpus, args.out, work, args.preset, args.device, args.weights, tuple(args.set)))


if __name__ == "__main__":
    main()
