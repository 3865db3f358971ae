"""Training in bfloat16, as on a GPU, rehearsed on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from scpalm.model.network.quantizer import CodeSizes, Quantizer
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.trainer import StageTrainer
from tests.training.stages.test_no_waiting import decoder_trainer, stage1_trainer, stage2_trainer
from tests.training.tiny import CPU


def half(trainer: StageTrainer[Any]) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("make", [stage1_trainer, stage2_trainer, decoder_trainer])
def test_losses_are_near_those_of_float32(
    corpus: Corpus, make: Callable[[Corpus, torch.device], StageTrainer[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(corpus, CPU)
    expected = [plain.train_step() for _ in range(12)]
    monkeypatch.setattr(StageTrainer, "autocast", half)
    trainer = make(corpus, CPU)
    for step, scalars in enumerate(expected):
        found = trainer.train_step()
        assert found.keys() == scalars.keys()
        assert found["mse"] == pytest.approx(scalars["mse"], rel=0.03), step
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in trainer.parameters)


def test_codes_are_chosen_in_float32() -> None:
    torch.manual_seed(0)
    quantizer, encoded = Quantizer(CodeSizes(6, 16, 32, 4)), torch.randn(20, 6, 16)
    expected = quantizer.nearest(quantizer.standardise(encoded))
    with torch.autocast("cpu", torch.bfloat16):
        point = quantizer.standardise(encoded)
        assert point.dtype == torch.float32
        assert torch.equal(quantizer.nearest(point), expected)
