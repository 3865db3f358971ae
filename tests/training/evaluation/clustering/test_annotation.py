from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.clustering.annotation import compare_annotation
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.cells import low_rank_counts, matrix_of


class Totals:
    """An embedding of three genes."""

    methods = ("h_C",)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return True

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float64]:
        rows = np.repeat(np.arange(matrix.num_cells), np.diff(matrix.indptr))
        out = np.zeros((matrix.num_cells, matrix.num_genes))
        out[rows, matrix.indices] = np.log1p(matrix.data)
        return out


def dataset(name: str, seed: int, names: list[str]) -> Dataset:
    rng = np.random.default_rng(seed)
    rates = low_rank_counts(90, 60)[1]
    return Dataset(name, matrix_of(rng.poisson(rates).astype(float)), encode_labels(names * 30))


def test_rows_of_both_methods_and_labels_by_another_name() -> None:
    reference = dataset("reference", 1, ["a", "b", "c"])
    query = dataset("query", 2, ["A cell", "b", "d"])
    rows = compare_annotation(reference, [query], Totals(), label_map={"A cell": "a"})
    assert [row["method"] for row in rows] == ["h_C", "pca50"]
    for row in rows:
        assert row["cells"] == 60 and float(row["nearest_accuracy"]) > 0.95
        assert 0 <= float(row["unknown_share_elsewhere"]) <= 1
        assert float(row["accuracy"]) <= float(row["nearest_accuracy"])
    assert [row["zero_shot"] for row in rows] == [True, False]


def test_files_without_a_label_in_common_are_refused() -> None:
    with pytest.raises(InputError, match="no label in common"):
        compare_annotation(dataset("r", 1, ["a", "b", "c"]), [dataset("q", 2, ["x", "y", "z"])], Totals())
