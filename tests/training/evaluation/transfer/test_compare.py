from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.transfer.compare import TransferOptions, compare_transfer
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.cells import low_rank_counts, matrix_of
from tests.training.evaluation.sources import LogCounts

CELLS = 90


def dataset(batches: tuple[str, ...] | None = None, labels: list[str] | None = None) -> Dataset:
    kinds = labels or ["a", "b", "c"] * (CELLS // 3)
    names = batches or tuple(["one", "two"][i // 45] for i in range(CELLS))
    return Dataset("panel", matrix_of(low_rank_counts(CELLS)[0]), encode_labels(kinds), batches=names)


def test_means_come_first_and_each_batch_has_a_row() -> None:
    rows = compare_transfer([dataset()], LogCounts(), TransferOptions(["embedding", "h_C", "pca50"]))
    assert [(row["dataset"], row["method"]) for row in rows] == [
        *(("panel", name) for name in ("embedding", "h_C", "pca50")),
        *((f"panel: {b}", name) for name in ("embedding", "h_C", "pca50") for b in ("one", "two")),
    ]
    mean, parts = rows[0], [row for row in rows if row["method"] == "embedding" and "batch" in row]
    assert mean["batches"] == 2 and mean["cells"] == CELLS and mean["unseen_cells"] == 0
    assert float(mean["transfer_accuracy"]) == pytest.approx(
        np.mean([float(row["transfer_accuracy"]) for row in parts])
    )
    assert float(mean["transfer_accuracy"]) > 0.95 > 0.6 > float(rows[1]["transfer_accuracy"])
    assert [row["zero_shot"] for row in rows[:3]] == [True, True, False]


def test_cells_with_a_label_that_only_their_batch_has_are_left_out() -> None:
    labels = [["a", "b", "only"][i % 3] if i < 45 else ["a", "b"][i % 2] for i in range(CELLS)]
    rows = compare_transfer([dataset(labels=labels)], LogCounts(), TransferOptions(["embedding"]))
    assert rows[0]["unseen_cells"] == 15 and rows[0]["cells"] == CELLS - 15


def test_harmony_corrects_the_components() -> None:
    pytest.importorskip("harmonypy", reason="install the extra [integration]")
    rows = compare_transfer([dataset()], LogCounts(), TransferOptions(["pca50", "harmony"]))
    assert rows[1]["method"] == "harmony" and rows[1]["width"] == rows[0]["width"]
    assert float(rows[1]["transfer_accuracy"]) > 0.9


def test_missing_packages_are_warnings_or_errors_if_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    monkeypatch.setitem(sys.modules, "scvi", None)
    with caplog.at_level(logging.WARNING):
        rows = compare_transfer([dataset()], LogCounts())
    assert [row["method"] for row in rows if "batch" not in row] == ["embedding", "h_C", "pca50"]
    assert "harmony is left out" in caplog.text and "scvi is left out" in caplog.text
    with pytest.raises(InputError, match=r"scpalm\[integration\]"):
        compare_transfer([dataset()], LogCounts(), TransferOptions(["harmony"]))
    with pytest.raises(InputError, match=r"scpalm\[compare\]"):
        compare_transfer([dataset()], LogCounts(), TransferOptions(["scvi"]))


def test_columns_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(InputError, match="--batch-key"):
        compare_transfer([dataset(("one",) * CELLS)], LogCounts())
    with pytest.raises(InputError, match="no two batches"):
        compare_transfer([dataset(labels=["a"] * 45 + ["b"] * 45)], LogCounts(), TransferOptions(["embedding"]))
