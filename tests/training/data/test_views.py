"""Views of a batch: which cells, which pairs are positive, and what a view changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scpalm.model.read_out.basis import Basis
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.views import ViewBatch, ViewSource
from scpalm.training.runs.views_config import ViewsConfig
from scpalm.training.stages.basis import fit_basis
from tests.training.tiny import SIZES, write_corpus

CONFIG = ViewsConfig(batch_size=24, panel_low=20, panel_high=60)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The tiny corpus with labels of a training set that the table of cell types knows, in both files."""
    path = write_corpus(tmp_path_factory.mktemp("views"))
    obs = pd.read_parquet(path / "obs.parquet")
    obs["dataset"] = "pancreas_enge2017_smartseq2"
    obs["cell_type"] = np.array(["alpha", "beta", "delta", ""])[np.arange(len(obs)) % 4]
    obs.to_parquet(path / "obs.parquet")
    return Corpus(path)


@pytest.fixture(scope="module")
def basis(labelled: Corpus) -> Basis:
    return fit_basis(labelled, SIZES, seed=0, simulated_share=0.35)


def batches(corpus: Corpus, basis: Basis, config: ViewsConfig, count: int = 6) -> list[ViewBatch]:
    source = ViewSource(corpus, basis, config)
    return [source(step) for step in range(count)]


def test_a_step_always_gives_the_same_batch(labelled: Corpus, basis: Basis) -> None:
    one, two = (batches(labelled, basis, CONFIG) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.f, b.f) and torch.equal(a.positive, b.positive)
    assert not torch.equal(one[0].clean, one[1].clean)


def test_shapes_and_lengths(labelled: Corpus, basis: Basis) -> None:
    for batch in batches(labelled, basis, CONFIG):
        size = len(batch.clean)
        assert batch.f.shape == (2, size, SIZES.components) and batch.log_measured.shape == (2, size, 1)
        torch.testing.assert_close(batch.f.norm(dim=2), torch.ones(2, size))
        assert batch.positive.diagonal().all() and torch.equal(batch.positive, batch.positive.T)
        assert not (batch.positive & batch.ignored).any()


def test_without_views_both_equal_the_cell(labelled: Corpus, basis: Basis) -> None:
    plain = ViewsConfig(batch_size=24, technology_share=0.0, panel_share=0.0, thin_low=1.0, mixed_share=0.0)
    for batch in batches(labelled, basis, plain, 3):
        torch.testing.assert_close(batch.f[0], batch.clean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(batch.f[1], batch.clean, rtol=1e-4, atol=1e-5)


def test_labels_make_positives_only_where_they_are(labelled: Corpus, basis: Basis) -> None:
    with_labels = batches(labelled, basis, replace(CONFIG, mixed_share=0.0))
    without = batches(labelled, basis, replace(CONFIG, mixed_share=0.0, labels=False))
    assert any(batch.positive.sum() > len(batch.clean) for batch in with_labels)
    assert all(batch.positive.sum() == len(batch.clean) for batch in without)


def test_mixed_batches_join_data_sets(labelled: Corpus, basis: Basis) -> None:
    for batch in batches(labelled, basis, replace(CONFIG, mixed_share=1.0)):
        assert batch.positive.sum() > len(batch.clean)
        assert len(batch.log_measured.unique()) == 2  # cells of both files


def test_a_corpus_of_tiny_sets_is_refused(labelled: Corpus, basis: Basis, tmp_path: Path) -> None:
    few = Corpus(labelled.path)
    few.obs["held_out"] = np.arange(len(few.obs)) >= 10
    with pytest.raises(ValueError, match="16 cells to train a view head on"):
        ViewSource(few, basis, CONFIG)
