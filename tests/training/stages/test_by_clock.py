from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage1Config, Stage2Config, as_dict
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.portable import read_parts, restore_run, weights_of, write_parts
from scpalm.training.runs.run import Run, RunError
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.stages.by_clock import ClockedLoop, Deadlines
from scpalm.training.stages.clocked_stages import make_trainer, resume
from tests.training.tiny import CPU, SIZES

MANY = 10_000_000
COMMON: dict[str, Any] = {"steps": MANY, "batch_size": 16, "warmup_steps": 5}
STAGES = ("stage1", "stage2", "decoder")


def new_run(folder: Path, corpus: Corpus) -> Run:
    run = Run(folder)
    run.create(
        {
            "network": SIZES.as_dict(),
            "corpus": str(corpus.path),
            "stage1": as_dict(Stage1Config(**COMMON, lr=1e-3)),
            "stage2": as_dict(Stage2Config(**COMMON, clusters=3, negatives=6, queue=96, queue_start=48, replicas=2)),
            "decoder": as_dict(DecoderConfig(**COMMON)),
        }
    )
    return run


class Clock:
    """Time that passes with the work of a trainer: a second a step, three an evaluation."""

    def __init__(self, trainer: StageTrainer[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 100.0
        advance, evaluate = trainer.advance, trainer.evaluate

        def slow_advance() -> None:
            self.time += 1
            advance()

        def slow_evaluate() -> dict[str, float]:
            self.time += 3
            return evaluate()

        monkeypatch.setattr(trainer, "advance", slow_advance)
        monkeypatch.setattr(trainer, "evaluate", slow_evaluate)

    def now(self) -> float:
        return self.time


def train(trainer: StageTrainer[Any], run: Run, clock: Clock, stage: float, call: float) -> tuple[bool, list[float]]:
    rates: list[float] = []

    def note(step: int, scalars: Mapping[str, float]) -> None:
        rates.append(scalars["lr"])

    deadlines = Deadlines(clock.time + stage, clock.time + call)
    return ClockedLoop(trainer, run, deadlines, note, clock.now).train(), rates


@pytest.mark.parametrize("read_every", [1, 4])
def test_a_stage_ends_with_its_time_and_so_does_its_schedule(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int
) -> None:
    run = new_run(tmp_path, corpus)
    trainer = make_trainer("stage1", corpus, run, CPU)
    trainer.read_every = read_every
    clock = Clock(trainer, monkeypatch)
    finished, rates = train(trainer, run, clock, 120, 120)
    assert finished and run.finished("stage1")["step"] == trainer.step
    assert 220 - 2 * read_every - 3 <= clock.time <= 220
    assert max(rates) == pytest.approx(1e-3, rel=0.02)
    assert rates[-1] < 0.1 * max(rates)
    assert trainer.codes_started  # type: ignore[attr-defined]
    curves = (tmp_path / "curves.jsonl").read_text().splitlines()
    assert 4 <= len(curves) <= 6


def test_a_call_that_ends_within_a_stage_is_continued(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, corpus)
    trainer = make_trainer("stage1", corpus, run, CPU)
    clock = Clock(trainer, monkeypatch)
    finished, first = train(trainer, run, clock, 120, 60)
    assert not finished and clock.time <= 160
    with pytest.raises(RunError, match="Finish it"):
        run.finished("stage1")
    again = make_trainer("stage1", corpus, run, CPU)
    resume(again, run.load_checkpoint("stage1"))
    assert again.step == trainer.step and again.planned_steps == trainer.planned_steps < 130
    clock = Clock(again, monkeypatch)
    finished, second = train(again, run, clock, 60, 60)
    assert finished
    # The schedule goes on where it stopped.
    assert second[0] == pytest.approx(first[-1], rel=0.15)
    assert second[-1] < 0.1 * max(first)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose stages are finished after six steps each."""
    run = new_run(tmp_path_factory.mktemp("trained") / "run", corpus)
    for stage in STAGES:
        trainer = make_trainer(stage, corpus, run, CPU)
        trainer.plan(6)
        for _ in range(6):
            trainer.train_step()
        run.save_checkpoint(stage, trainer.state() | {"ended": True, "planned": 6})
    return run


def test_the_weights_of_a_run_travel_in_parts(trained: Run, corpus: Corpus, tmp_path: Path) -> None:
    files = write_parts(weights_of(trained), tmp_path / "parts", part_bytes=20_000)
    assert len(files) > 3 and all(file.stat().st_size <= 20_000 for file in files)
    home = Run(tmp_path / "home")
    restore_run(read_parts(tmp_path / "parts"), home)
    assert home.config() == trained.config()
    for stage in STAGES:
        assert home.finished(stage)["step"] == 6
    one, two = trained.load_checkpoint("stage1")["model"], home.load_checkpoint("stage1")["model"]
    served = trained.load_checkpoint("decoder")["decoder"]
    assert one.keys() == two.keys()
    for name in one:
        expected = served.get(name, one[name])
        if isinstance(expected, dict):
            assert all(torch.equal(expected[key], two[name][key]) for key in expected)
        else:
            assert torch.equal(expected, two[name]), name
    # Stage 2 is over, and its decoder is not served.
    assert set(home.load_checkpoint("stage2")) == {"encoder", "step", "ended", "planned"}
    trainer = make_trainer("decoder", corpus, home, CPU)
    resume(trainer, home.load_checkpoint("decoder"))
    assert trainer.step == 6


def test_large_matrices_are_rounded_and_the_rest_is_not(trained: Run, tmp_path: Path) -> None:
    weights = weights_of(trained)
    matrix, vector = torch.randn(400, 300), torch.randn(300)
    weights.states["stage1"]["model"] |= {"large": matrix, "small": vector}
    write_parts(weights, tmp_path)
    model = read_parts(tmp_path).states["stage1"]["model"]
    assert torch.equal(model["large"], matrix.half().float()) and torch.equal(model["small"], vector)


def test_an_unfinished_stage_2_goes_on_from_its_weights(trained: Run, corpus: Corpus, tmp_path: Path) -> None:
    weights = weights_of(trained)
    del weights.states["decoder"]
    full = trained.load_checkpoint("stage2")
    weights.states["stage2"] = {name: full[name] for name in ("encoder", "decoder", "step")} | {"ended": False}
    weights.states["stage1"]["model"] = trained.load_checkpoint("stage1")["model"]
    write_parts(weights, tmp_path / "parts")
    run = Run(tmp_path / "run")
    restore_run(read_parts(tmp_path / "parts"), run)
    trainer = make_trainer("stage2", corpus, run, CPU)
    resume(trainer, run.load_checkpoint("stage2"))
    assert trainer.step == 6
    assert torch.equal(trainer.decoder.head.weight, full["decoder"]["head.weight"])  # type: ignore[attr-defined]
    trainer.train_step()
    assert trainer.step == 7


@pytest.mark.parametrize("damage", ["missing", "changed", "no list"])
def test_damaged_parts_are_refused(trained: Run, tmp_path: Path, damage: str) -> None:
    files = write_parts(weights_of(trained), tmp_path, part_bytes=20_000)
    if damage == "missing":
        files[1].unlink()
    elif damage == "changed":
        files[1].write_bytes(files[1].read_bytes()[:-1] + b"x")
    else:
        files[-1].write_text("{}")
    with pytest.raises(RunError, match="Copy it again"):
        read_parts(tmp_path)


def test_a_stage_needs_the_one_before_it(corpus: Corpus, tmp_path: Path) -> None:
    run = new_run(tmp_path, corpus)
    for stage in ("stage2", "decoder"):
        with pytest.raises(RunError, match=r"stage1\.pt cannot be read"):
            make_trainer(stage, corpus, run, CPU)
