from __future__ import annotations

import logging

import pytest

from scpalm.model.errors import InputError
from scpalm.training.evaluation.clustering.few_cells import BASELINES, FewCellsOptions, compare_few_cells
from scpalm.training.evaluation.common.baselines import Baselines
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import EmbeddingSource
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.cells import low_rank_counts, matrix_of
from tests.training.evaluation.sources import LogCounts


def dataset(name: str, cells: int) -> Dataset:
    labels = ["a", "b", "c"] * (cells // 3)
    return Dataset(name, matrix_of(low_rank_counts(cells)[0]), encode_labels(labels))


def test_every_method_is_scored_on_the_same_drawn_cells() -> None:
    sources: list[EmbeddingSource] = [LogCounts(), Baselines(BASELINES)]
    options = FewCellsOptions(30, seeds=(0, 1))
    rows = compare_few_cells([dataset("blood", 120)], sources, options)
    methods = ["embedding", "h_C", "hvg2000", "pca10", "pca50"]
    assert [(row["seed"], row["method"]) for row in rows] == [(seed, name) for seed in (0, 1) for name in methods]
    assert all(row["cells"] == 30 and row["task"] == "few_cells" for row in rows)
    by_method = {row["method"]: row for row in rows}
    assert float(by_method["embedding"]["knn_accuracy"]) > 0.95 > 0.7 > float(by_method["h_C"]["knn_accuracy"])
    # Fitted to the 30 cells alone.
    assert by_method["pca50"]["width"] == 29 and by_method["pca10"]["width"] == 10
    assert [by_method[name]["zero_shot"] for name in methods] == [True, True, False, False, False]
    assert rows == compare_few_cells([dataset("blood", 120)], sources, options)


def test_small_files_are_left_out_and_an_error_when_alone(caplog: pytest.LogCaptureFixture) -> None:
    options = FewCellsOptions(60, ["embedding"], (0,))
    with caplog.at_level(logging.WARNING):
        rows = compare_few_cells([dataset("small", 30), dataset("large", 90)], [LogCounts()], options)
    assert [row["dataset"] for row in rows] == ["large"] and "small has 30 labelled cells" in caplog.text
    with pytest.raises(InputError, match="--cells"):
        compare_few_cells([dataset("small", 30)], [LogCounts()], options)
    with pytest.raises(InputError, match="needs 6 cells"):
        compare_few_cells([dataset("large", 90)], [LogCounts()], FewCellsOptions(5))
