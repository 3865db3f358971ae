from __future__ import annotations

import random

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.training.metrics.clustering import RESOLUTIONS, score_embedding
from tests.training.evaluation.blobs import blobs


def test_separate_groups_score_one() -> None:
    array, labels = blobs()
    rows = score_embedding(array, labels, seeds=[0, 1, 2])
    assert [row["seed"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["knn_accuracy"] == 1
        assert row["knn_macro_f1"] == 1
        assert float(row["silhouette"]) > 0.6
        assert (row["cells"], row["labels"]) == (180, 3)
        # Resolution 1.0 may split a group but never joins two.
        assert int(row["num_clusters"]) >= 3
        assert float(row["ari"]) > 0.5


def test_groups_that_modularity_finds_score_ari_one() -> None:
    array, labels = blobs((30,) * 8)
    row = score_embedding(array, labels, seeds=[0])[0]
    assert row["ari"] == 1
    assert row["nmi"] == pytest.approx(1)
    assert row["num_clusters"] == 8


def test_random_labels_score_zero() -> None:
    array, labels = blobs((100, 100))
    shuffled = np.random.default_rng(1).permutation(labels)
    row = score_embedding(array, shuffled, seeds=[0])[0]
    assert abs(float(row["ari"])) < 0.05
    assert float(row["nmi"]) < 0.1
    assert abs(float(row["silhouette"])) < 0.05
    assert 0.3 < float(row["knn_accuracy"]) < 0.7


def test_the_same_seeds_give_the_same_rows_regardless_of_the_global_generators() -> None:
    array, labels = blobs(spread=0.2)
    random.seed(1)
    first = score_embedding(array, labels, seeds=[4, 5])
    random.seed(2)
    np.random.seed(2)
    second = score_embedding(array, labels, seeds=[5, 4])
    assert first == second[::-1]
    state = random.getstate()
    score_embedding(array, labels, seeds=[4])
    assert random.getstate() == state


def test_seeds_change_the_score_of_overlapping_groups() -> None:
    array, labels = blobs(spread=0.1)
    rows = score_embedding(array, labels, seeds=range(6))
    assert len({row["ari"] for row in rows}) > 1
    assert len({row["knn_accuracy"] for row in rows}) > 1
    assert len({row["silhouette"] for row in rows}) == 1


def test_float32_and_a_shift_change_nothing() -> None:
    array, labels = blobs()
    array = np.round(array * 8) / 8  # exact in float32, shift included
    assert score_embedding(array, labels, [0]) == score_embedding(array.astype(np.float32) + 64, labels, [0])


def test_unlabelled_cells_are_in_the_graph_but_not_scored() -> None:
    array, labels = blobs((30,) * 8)
    labels[:20] = "unassigned"
    labels[20:25] = np.nan
    row = score_embedding(array, labels, seeds=[0])[0]
    assert row["cells"] == 215
    assert row["labels"] == 8
    assert row["ari"] == 1
    assert row["num_clusters"] == 8


def test_invalid_input_is_named() -> None:
    array, labels = blobs()
    with pytest.raises(InputError, match="180 cells and there are 179 labels"):
        score_embedding(array, labels[1:])
    with pytest.raises(InputError, match="There are 15 cells"):
        score_embedding(array[:15], labels[:15])
    broken = array.copy()
    broken[7, 2] = np.inf
    with pytest.raises(InputError, match="cell 7 is not finite"):
        score_embedding(broken, labels)
    with pytest.raises(InputError, match="shape"):
        score_embedding(array[:, 0], labels)


def test_label_dependent_metrics_are_optional_and_named_separately() -> None:
    array, labels = blobs((40, 30, 30))
    (plain,), (row,) = score_embedding(array, labels, [0]), score_embedding(array, labels, [0], extended=True)
    assert "best_ari" not in plain and {key: row[key] for key in plain} == plain
    assert float(row["best_ari"]) >= float(row["ari"]) and row["best_ari"] == 1
    assert row["best_resolution"] in RESOLUTIONS
    assert row["probe_accuracy"] == 1 and row["probe_macro_f1"] == 1
    noise = np.random.default_rng(0).normal(size=array.shape)
    assert float(score_embedding(noise, labels, [0], extended=True)[0]["probe_accuracy"]) < 0.6
