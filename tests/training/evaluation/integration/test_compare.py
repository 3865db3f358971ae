"""Integration is scored for every way in one run; an effect that is kept scores above chance."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.dataset import load_dataset
from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
from scpalm.training.evaluation.integration.compare import (
    IntegrationOptions,
    compare_integration,
    effect_accuracy,
)
from tests.training.bundles import exported
from tests.training.tiny import tiny_counts, write_h5ad

# Not imported while tests are collected: absl, which it imports, would keep the stream of pytest and close it.
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("scib_metrics", "harmonypy")), reason="scib-metrics is not installed"
)


def test_all_ways_are_scored_in_one_run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    counts = tiny_counts(150, seed=3)
    counts[75:] *= 1 + (np.arange(counts.shape[1]) % 5 == 0)  # the second batch has more of some genes
    kinds = [f"kind{int(row[::3].sum() < row[1::3].sum())}" for row in counts]
    obs = {"cell_type": kinds, "batch": ["one"] * 75 + ["two"] * 75, "same": ["x"] * 150}
    path = write_h5ad(tmp_path / "cells.h5ad", counts, obs=obs)
    dataset = load_dataset(path, batch_key="batch")
    model = BundleEmbeddings(Bundle.load(exported(tmp_path_factory).bundle))
    methods = ("pca50", "harmony", "embedding", "integrate")
    options = IntegrationOptions(methods, effects=["treated", "control"] * 75)
    rows = compare_integration(dataset, model, options)
    assert [row["method"] for row in rows] == list(methods)
    for row in rows:
        assert {"total", "batch", "bio", "ilisi", "seconds", "effect_accuracy"} <= set(row)
        assert abs(float(row["total"]) - 0.4 * float(row["batch"]) - 0.6 * float(row["bio"])) < 1e-4
    with pytest.raises(ValueError, match="Unknown method 'guess'"):
        compare_integration(dataset, model, IntegrationOptions(["guess"]))
    with pytest.raises(InputError, match="one batch"):
        compare_integration(replace(dataset, batches=("x",) * 150), model, options)


def test_an_effect_is_measured_within_labels() -> None:
    random = np.random.default_rng(0)
    labels, effects = random.integers(2, size=200), np.array(["a", "b"])[random.integers(2, size=200)]
    noise = random.normal(size=(200, 3))
    seen = noise.copy()
    seen[:, 0] += 6 * (effects == "b")
    assert effect_accuracy(seen, labels, effects) > 0.95
    assert 0.35 < effect_accuracy(noise, labels, effects) < 0.65
    assert np.isnan(effect_accuracy(seen, labels, np.array(["a"] * 200)))
