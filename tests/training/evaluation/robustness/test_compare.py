from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.principal_components import principal_components
from scpalm.training.evaluation.robustness.compare import RobustnessOptions, compare_robustness
from scpalm.training.evaluation.robustness.fitted_components import FittedComponents
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.cells import dense, low_rank_counts, matrix_of


class Projection:
    """A fixed linear map by gene name, and a constant."""

    methods = ("embedding", "basis")

    def zero_shot(self, method: str, dataset: str) -> bool:
        return True

    def embed(self, method: str, matrix: CellMatrix) -> np.ndarray:
        if method == "basis":
            return np.eye(4)[np.arange(matrix.num_cells) % 4]
        weights = np.random.default_rng(0).normal(size=(60, 6))
        return dense(matrix) @ weights[[int(name[4:]) for name in matrix.genes]]


def dataset(name: str = "blood", *, fractional: bool = False) -> Dataset:
    counts = low_rank_counts(60, 60)[0] * (0.5 if fractional else 10)
    return Dataset(name, matrix_of(counts), encode_labels(["a", "b", "c"] * 20))


def test_scores_of_a_constant_a_projection_and_components() -> None:
    options = RobustnessOptions(("embedding", "basis", "pca50"), (0, 1), num_genes=5)
    rows = compare_robustness([dataset()], Projection(), options)
    assert [(row["seed"], row["method"]) for row in rows] == [
        (seed, name) for seed in (0, 1) for name in ("embedding", "basis", "pca50")
    ]
    first, constant, components = rows[:3]
    assert constant["thinning_cosine"] == constant["neighbor_cosine"] == 1 and constant["gene_removal_move"] == 0
    assert 0.95 < float(first["thinning_cosine"]) < 1 and 0 < float(first["gene_removal_move"]) < 1
    assert 0 < float(components["gene_removal_move"]) < 1 and components["zero_shot"] is False
    assert rows == compare_robustness([dataset()], Projection(), options)


def test_projected_cells_of_the_fit_have_its_scores() -> None:
    matrix = dataset().matrix
    fitted = FittedComponents(matrix, 10)
    expected = principal_components(log_normalized(matrix), 10)
    np.testing.assert_allclose(fitted.project(matrix, np.arange(60)), expected, atol=1e-8)


def test_files_without_counts_are_left_out_and_an_error_when_alone(caplog: pytest.LogCaptureFixture) -> None:
    options = RobustnessOptions(("basis",))
    halves = dataset("halves", fractional=True)
    with caplog.at_level(logging.WARNING):
        rows = compare_robustness([halves, dataset()], Projection(), options)
    assert [row["dataset"] for row in rows] == ["blood"] and "halves is left out" in caplog.text
    with pytest.raises(InputError, match="halves"):
        compare_robustness([halves], Projection(), options)
    with pytest.raises(ValueError, match="Unknown method 'umap'"):
        compare_robustness([dataset()], Projection(), replace(options, methods=("umap",)))
