from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.annotate import UNKNOWN, Reference
from scpalm.model.errors import InputError


def groups(num: int, seed: int) -> tuple[np.ndarray, list[object]]:
    rng = np.random.default_rng(seed)
    codes = np.arange(num) % 3
    return np.eye(3)[codes] * 20 + rng.normal(size=(num, 3)), [f"type {code}" for code in codes]


def test_cells_get_the_label_of_their_group_and_far_cells_none() -> None:
    array, labels = groups(150, 0)
    reference = Reference(array, labels)
    query, truth = groups(60, 1)
    found = reference.annotate(np.vstack([query, [[200.0, 200.0, 200.0]]]))
    close = found.distance[:-1] <= found.threshold
    assert close.mean() > 0.9
    assert (found.label[:-1][close] == np.array(truth, dtype=object)[close]).all()
    assert (found.nearest_label[:-1] == np.array(truth, dtype=object)).all()
    assert (found.probability[:-1] == 1).all()
    assert found.label[-1] == UNKNOWN and found.nearest_label[-1] in reference.names


def test_a_cell_does_not_depend_on_other_cells() -> None:
    array, labels = groups(150, 0)
    reference, (query, _) = Reference(array, labels), groups(20, 2)
    whole = reference.annotate(query)
    for i in range(20):
        alone = reference.annotate(query[i : i + 1])
        assert (alone.label[0], alone.probability[0]) == (whole.label[i], whole.probability[i])


def test_distances_are_exact_and_a_tie_goes_to_the_nearer_cells() -> None:
    array = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    found = Reference(array, ["a", "b", "b", "a", "a"], k=4).annotate(np.array([[0.1]]))
    assert found.distance[0] == pytest.approx(0.1)
    assert found.nearest_label[0] == "a" and found.probability[0] == 0.5


def test_unlabelled_cells_are_ignored() -> None:
    array, labels = groups(150, 0)
    marked = ["" if i % 2 else label for i, label in enumerate(labels)]
    assert Reference(array, marked).names == ("type 0", "type 1", "type 2")


def test_an_unusable_reference_is_refused() -> None:
    array, labels = groups(30, 0)
    with pytest.raises(InputError, match="29 labels"):
        Reference(array, labels[:-1])
    with pytest.raises(InputError, match="16 are needed"):
        Reference(array[:10], labels[:10])
    with pytest.raises(InputError, match="All labelled cells"):
        Reference(array, ["a"] * 30)
    with pytest.raises(InputError, match="not finite"):
        Reference(np.where(np.arange(30)[:, None] == 3, np.nan, array), labels)
    with pytest.raises(InputError, match="width 3"):
        Reference(array, labels).annotate(np.zeros((2, 4)))
