from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.training.evaluation.clustering.integration import score_batches
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.blobs import blobs


def world() -> tuple[NDArray[np.float64], NDArray[np.object_], NDArray[np.int64]]:
    array, labels = blobs((60, 60, 60))
    return array, labels, np.random.default_rng(0).integers(0, 2, len(array))


def test_mixed_batches_score_high_and_apart_ones_low() -> None:
    pytest.importorskip("scib_metrics")
    array, labels, batch = world()
    truth = encode_labels(labels)
    names = [f"batch {b}" for b in batch]
    mixed = score_batches(array, truth, names)
    apart = score_batches(array + 1000.0 * batch[:, None], truth, names)
    assert float(mixed["ilisi"]) > 0.8 and float(apart["ilisi"]) < 0.05
    assert float(mixed["clisi"]) > 0.9 and float(mixed["graph_connectivity"]) > 0.98
    # Each type falls into two halves.
    assert 0.4 < float(apart["graph_connectivity"]) < 0.7
    assert score_batches(array, truth, names) == mixed


def test_cells_without_a_label_count_for_the_batches_alone() -> None:
    pytest.importorskip("scib_metrics")
    array, labels, batch = world()
    names = [f"batch {b}" for b in batch]
    some = score_batches(array, encode_labels([*labels[:120], *[""] * 60]), names)
    whole = score_batches(array, encode_labels(labels), names)
    assert some["ilisi"] == whole["ilisi"] and some["clisi"] != whole["clisi"]


@pytest.mark.parametrize("batches", [["one"] * 180, ["a"] * 179 + [""], ["a", "b"]])
def test_a_column_that_holds_no_batches_is_an_error(batches: list[str]) -> None:
    pytest.importorskip("scib_metrics")
    array, labels, _ = world()
    with pytest.raises(InputError, match="--batch-key") as caught:
        score_batches(array, encode_labels(labels), batches)
    assert caught.value.code == "one-batch"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    array, labels, batch = world()
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(InputError, match=r"scpalm\[integration\]"):
        score_batches(array, encode_labels(labels), [str(b) for b in batch])
