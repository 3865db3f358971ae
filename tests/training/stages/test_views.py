"""The view head learns, resumes bit for bit, and its loss follows the formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import ConfigError, override
from scpalm.training.runs.run import Run
from scpalm.training.runs.views_config import ViewsConfig
from scpalm.training.stages.basis import fit_basis
from scpalm.training.stages.views import STAGE, ViewTrainer, info_nce, train_views
from tests.training.same import assert_same_state
from tests.training.tiny import CPU, SIZES

SHORT = ViewsConfig(
    steps=12, batch_size=20, warmup_steps=2, panel_low=20, panel_high=60, checkpoint_every=6, evaluate_every=6
)


def trainer(corpus: Corpus, config: ViewsConfig = SHORT) -> ViewTrainer:
    return ViewTrainer(corpus, fit_basis(corpus, SIZES, seed=0, simulated_share=0.35), SIZES, config, CPU)


def test_it_learns_to_tell_cells_apart_and_to_keep_f(corpus: Corpus, tmp_path: Path) -> None:
    model = trainer(corpus, replace(SHORT, steps=150, lr=3e-3, evaluate_every=50))
    before = model.evaluate()["held_out_mse"]
    first = model.train_step()["contrastive"]
    train_views(model, Run(tmp_path))
    assert model.evaluate()["held_out_mse"] < 0.9 * before
    last = sum(model.train_step()["contrastive"] for _ in range(5)) / 5
    assert last < 0.8 * first
    assert Run(tmp_path).has_checkpoint(STAGE)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_resumed_run_is_the_same_run_bit_for_bit(corpus: Corpus, tmp_path: Path, stop: int) -> None:
    whole, part, resumed = trainer(corpus), trainer(corpus), trainer(corpus)
    for _ in range(12):
        whole.train_step()
    for _ in range(stop):
        part.train_step()
    run = Run(tmp_path)
    run.save_checkpoint(STAGE, part.state())
    run.resume(resumed, STAGE)
    for _ in range(12 - stop):
        resumed.train_step()
    assert_same_state(resumed.state(), whole.state())


def test_info_nce_follows_the_formula() -> None:
    torch.manual_seed(0)
    similarity, positive = torch.randn(5, 5), torch.eye(5, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    losses = []
    for i in range(5):
        share = similarity[i].exp() / similarity[i].exp().sum()
        losses.append(-share[positive[i]].log().mean())
    torch.testing.assert_close(info_nce(similarity, positive), torch.stack(losses).mean())


@pytest.mark.parametrize("name", ["accumulate", "thin_share", "score_weight"])
def test_options_of_other_stages_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no effect on the view head"):
        override(ViewsConfig(), {name: "1"})
