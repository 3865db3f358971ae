from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.clustering.compare import ClusteringOptions, compare_clustering
from scpalm.training.evaluation.common.baselines import Baselines
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.table import table
from scpalm.training.metrics.labels import encode_labels
from scpalm.training.metrics.rows import Row, write_rows
from tests.training.evaluation.blobs import blobs


class Groups:
    """A source of a perfect embedding and of a constant one."""

    methods = ("h_C", "untrained")

    def __init__(self, array: NDArray[np.float64]) -> None:
        self._array = array

    def zero_shot(self, method: str, dataset: str) -> bool:
        return dataset != "seen"

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float64]:
        return self._array if method == "h_C" else np.random.default_rng(0).normal(size=self._array.shape)


@pytest.fixture
def dataset() -> Dataset:
    _, labels = blobs((30,) * 8)
    rows = sparse.csr_matrix(np.random.default_rng(1).poisson(1.0, size=(240, 40)).astype(np.float32))
    matrix = CellMatrix(
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.int32),
        rows.data,
        [f"g{i}" for i in range(40)],
        [f"c{i}" for i in range(240)],
    )
    return Dataset("blood", matrix, encode_labels(labels))


def test_rows_of_every_method_seed_and_claim(dataset: Dataset) -> None:
    array, _ = blobs((30,) * 8)
    steps: list[str] = []
    rows = compare_clustering(
        [dataset], [Groups(array), Baselines()], ClusteringOptions(seeds=[0, 1]), progress=steps.append
    )
    methods = ["h_C", "untrained", "hvg2000", "pca50", "pca256"]
    assert [(row["method"], row["seed"]) for row in rows] == [(method, seed) for method in methods for seed in (0, 1)]
    assert steps == [f"blood: {method}" for method in methods]
    by_method = {row["method"]: row for row in rows}
    assert by_method["h_C"]["ari"] == 1
    assert abs(float(by_method["untrained"]["ari"])) < 0.1
    assert [by_method[method]["zero_shot"] for method in methods] == [True, True, False, False, False]
    assert by_method["pca256"]["width"] == 39
    assert "39 components" in str(by_method["pca256"]["note"])
    assert "note" not in by_method["hvg2000"]


def test_chosen_methods_only_and_unknown_ones_refused(dataset: Dataset) -> None:
    rows = compare_clustering([dataset], [Baselines()], ClusteringOptions(["pca50"], [3]))
    assert [row["method"] for row in rows] == ["pca50"]
    with pytest.raises(ValueError, match="Unknown method 'umap'"):
        compare_clustering([dataset], [Baselines()], ClusteringOptions(["umap"]))
    with pytest.raises(ValueError, match="Two sources provide the method 'hvg2000'"):
        compare_clustering([dataset], [Baselines(), Baselines()])


def test_a_set_the_model_was_trained_on_is_not_called_zero_shot(dataset: Dataset) -> None:
    array, _ = blobs((30,) * 8)
    seen = Dataset("seen", dataset.matrix, dataset.labels)
    assert not compare_clustering([seen], [Groups(array)], ClusteringOptions(["h_C"], [0]))[0]["zero_shot"]


def test_written_rows_are_read_back(tmp_path: Path) -> None:
    rows: list[Row] = [{"dataset": "a", "method": "b", "seed": 0, "ari": 0.5, "zero_shot": True}]
    write_rows(tmp_path / "new" / "rows.json", rows)
    assert json.loads((tmp_path / "new" / "rows.json").read_text()) == rows
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.json"]
    write_rows(tmp_path / "none.json", [])
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_table_has_mean_and_spread_over_seeds() -> None:
    rows: list[Row] = [
        {"dataset": "a", "method": "h_C", "seed": 0, "ari": 0.5, "nmi": 0.25, "zero_shot": True, "width": 128},
        {"dataset": "a", "method": "h_C", "seed": 1, "ari": 0.7, "nmi": 0.25, "zero_shot": True, "width": 128},
        {"dataset": "a", "method": "pca50", "seed": 0, "ari": 0.1, "zero_shot": False, "width": 5, "note": "narrow"},
    ]
    lines = table(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["dataset", "method", "ari", "nmi", "width", "claim"]
    assert cells[2] == ["a", "h_C", "0.600 ± 0.141", "0.250", "128", "zero-shot"]
    assert cells[3] == ["a", "pca50", "0.100", "", "5", "fitted to the set"]
    assert lines[4:] == ["", "a, pca50: narrow."]
    assert len({len(line) for line in lines[:4]}) == 1
