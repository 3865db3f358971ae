from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scpalm.model.annotation.calibration import Calibration
from scpalm.model.annotation.discriminant import Discriminant
from scpalm.model.annotation.labelled import choose_cells
from scpalm.model.annotation.reference import UNKNOWN, Reference
from scpalm.model.annotation.vote import vote
from scpalm.model.errors import InputError
from scpalm.model.io.labels import Categories


def groups(num: int, seed: int) -> tuple[np.ndarray, list[object]]:
    rng = np.random.default_rng(seed)
    codes = np.arange(num) % 3
    return np.eye(3)[codes] * 20 + rng.normal(size=(num, 3)), [f"type {code}" for code in codes]


def reference(array: np.ndarray, labels: Sequence[object]) -> Reference:
    return Reference.of(array, Categories.of(labels))


def test_cells_get_the_label_of_their_group_and_far_cells_none() -> None:
    known = reference(*groups(150, 0))
    query, truth = groups(60, 1)
    found = known.annotate(np.vstack([query, [[200.0, 200.0, 200.0]]]))
    close = found.distance[:-1] <= found.threshold
    assert close.mean() > 0.9
    assert (found.label[:-1][close] == np.array(truth, dtype=object)[close]).all()
    assert (found.nearest_label[:-1] == np.array(truth, dtype=object)).all()
    assert (found.probability[:-1] > 0.99).all()
    assert (found.second != found.nearest).all()
    assert found.label[-1] == UNKNOWN and found.nearest_label[-1] in known.names


def test_a_cell_does_not_depend_on_other_cells() -> None:
    known, (query, _) = reference(*groups(150, 0)), groups(600, 2)
    whole = known.annotate(query)
    for i in range(0, 600, 37):
        alone = known.annotate(query[i : i + 1])
        assert (alone.label[0], alone.second[0]) == (whole.label[i], whole.second[i])
        assert (alone.probability[0], alone.distance[0]) == (whole.probability[i], whole.distance[i])


def test_distances_are_exact_and_the_probability_of_a_tie_is_a_half() -> None:
    array = np.repeat([[0.0], [2.0]], 10, axis=0) + np.tile([[-0.1], [0.1]], (10, 1))
    found = reference(array, ["a"] * 10 + ["b"] * 10).annotate(np.array([[1.0], [0.1]]))
    assert found.distance == pytest.approx([0.9, 0.0], abs=1e-6)
    assert found.nearest_label[0] == "a" and found.probability[0] == 0.5
    assert found.probability[1] > 0.9


def test_a_large_group_does_not_outweigh_a_small_one() -> None:
    rng = np.random.default_rng(0)
    array = np.concatenate([np.zeros((90, 1)), np.full((10, 1), 4.0), np.full((100, 1), 9.0)]) + rng.normal(
        size=(200, 1), scale=0.01
    )
    labels = np.repeat(np.array([0, 1], np.int32), 100)
    sources = np.repeat(np.array([0, 1, 2], np.int32), [90, 10, 100])
    fitted = Discriminant.fit(array, labels, sources)
    assert fitted.centroids[0, 0] / fitted.projection[0, 0] == pytest.approx(2.0, abs=0.05)
    assert fitted.label_of_group.tolist() == [0, 0, 1]


def test_the_calibration_turns_shares_into_probabilities() -> None:
    shares = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(Calibration(1.0, 0.0, 1.0).probability(shares), shares)
    assert (Calibration(0.5, -1.0, 1.0).probability(shares)[1:] < shares[1:]).all()


def test_unlabelled_cells_are_ignored() -> None:
    array, labels = groups(150, 0)
    marked = ["" if i % 2 else label for i, label in enumerate(labels)]
    assert reference(array, marked).names == ("type 0", "type 1", "type 2")


def test_an_unusable_reference_is_refused() -> None:
    array, labels = groups(30, 0)
    with pytest.raises(InputError, match="29 labels"):
        reference(array, labels[:-1])
    with pytest.raises(InputError, match="16 are needed"):
        reference(array[:10], labels[:10])
    with pytest.raises(InputError, match="All labelled cells"):
        reference(array, ["a"] * 30)
    with pytest.raises(InputError, match="not finite"):
        reference(np.where(np.arange(30)[:, None] == 3, np.nan, array), labels)
    with pytest.raises(InputError, match="width 3"):
        reference(array, labels).annotate(np.zeros((2, 4)))


def test_a_group_shares_the_label_with_most_votes() -> None:
    labels = np.array([0, 0, 1, 2, 2, 1], np.int32)
    clusters = np.array([0, 0, 0, 1, 1, -1], np.int32)
    winner, share = vote(labels, clusters, 3)
    assert winner.tolist() == [0, 0, 0, 2, 2, 1]
    np.testing.assert_allclose(share, [2 / 3] * 3 + [1, 1, 1])
    assert vote(np.array([1, 0], np.int32), np.array([0, 0], np.int32), 2)[0].tolist() == [0, 0], "a tie"
    assert vote(labels, np.full(6, -1, np.int32), 3)[0].tolist() == labels.tolist()


def test_labels_get_equal_room_in_a_large_reference() -> None:
    chosen = choose_cells(Categories.of(["a"] * 9000 + ["b"] * 20 + [""] * 5))
    assert len(chosen) == 320 and (np.diff(chosen) > 0).all() and chosen[-1] < 9020
    many = choose_cells(Categories.of([f"type {i % 100}" for i in range(10_000)]))
    assert len(many) == 3000
    with pytest.raises(InputError, match="3,001 different labels"):
        choose_cells(Categories.of(list(range(3001))))
