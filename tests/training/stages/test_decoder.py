"""Training of the decoder: it learns, it resumes bit for bit, and stage 1 does not change."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import LinearReadOut
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import ConfigError, override
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.run import Run
from scpalm.training.stages.basis import fit_basis
from scpalm.training.stages.decoder import DecoderTrainer, train_decoder
from tests.training.same import assert_same_state
from tests.training.tiny import CPU, SIZES

SHORT = DecoderConfig(steps=6, batch_size=16, warmup_steps=2, evaluate_every=3, checkpoint_every=3, workers=0)


def stage1_of(corpus: Corpus) -> PathwayAutoencoder:
    torch.manual_seed(0)
    stage1 = PathwayAutoencoder(SIZES)
    assert isinstance(stage1.embedding, LinearReadOut)
    stage1.embedding.load(fit_basis(corpus, SIZES, seed=0, simulated_share=0.35))
    return stage1.eval()


def trainer(corpus: Corpus, config: DecoderConfig = SHORT, *, reads_f: bool = True) -> DecoderTrainer:
    stage1 = stage1_of(corpus)
    stage1.config = replace(stage1.config, decoder_reads_f=reads_f)
    return DecoderTrainer(corpus, stage1, config, CPU)


def test_f_lowers_the_error_and_stage_one_does_not_change(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(SHORT, steps=120, lr=1e-2, evaluate_every=60)
    errors = {}
    for reads_f in (False, True):
        model = trainer(corpus, config, reads_f=reads_f)
        before = copy.deepcopy(model._stage1.state_dict())
        train_decoder(model, Run(tmp_path / str(reads_f)))
        assert_same_state(model._stage1.state_dict(), before)
        errors[reads_f] = model.evaluate()["held_out_mse"]
    assert errors[True] < 0.9 * errors[False]


def test_a_resumed_run_is_the_same_run_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    whole, part, resumed = trainer(corpus), trainer(corpus), trainer(corpus)
    for _ in range(6):
        whole.train_step()
    for _ in range(3):
        part.train_step()
    resumed.restore(copy.deepcopy(part.state()))
    for _ in range(3):
        resumed.train_step()
    assert_same_state(resumed.state(), whole.state())


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match="score_weight has no effect"):
        override(DecoderConfig(), {"score_weight": "2"})
