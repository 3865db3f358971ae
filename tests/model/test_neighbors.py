from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scpalm.model.neighbors import NeighborSearch, nearest
from tests.training.evaluation.blobs import blobs


def test_nearest_agrees_with_scikit_learn() -> None:
    array, _ = blobs()
    found = nearest(array, 20)
    distance, index = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(array).kneighbors()
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, atol=1e-5)


def test_nearest_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    array, _ = blobs()
    whole = nearest(array, 20)
    monkeypatch.setattr("scpalm.model.neighbors.BLOCK_ROWS", 7)
    parts = nearest(array, 20)
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_array_equal(whole.distance, parts.distance)


def test_ties_go_to_the_lower_index_and_never_to_the_cell_itself() -> None:
    # A large offset, so that rounding errors would break the ties if distances were not rounded.
    array = np.tile(np.array([[1000.1, -77.7]]), (6, 1))
    array[5] += [0.3, 0.4]
    found = nearest(array, 4)
    assert found.index[0].tolist() == [1, 2, 3, 4]
    assert found.index[2].tolist() == [0, 1, 3, 4]
    assert found.index[5].tolist() == [0, 1, 2, 3]
    assert found.distance[:5].tolist() == [[0.0] * 4] * 5
    np.testing.assert_allclose(found.distance[5], 0.5)


def test_too_many_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="choose 1 to 4"):
        nearest(np.zeros((5, 2)), 5)


def test_a_query_agrees_with_scikit_learn_and_does_not_depend_on_the_other_cells() -> None:
    array, _ = blobs()
    reference, queries = array[:100], array[100:]
    search = NeighborSearch(reference)
    found = search.query(queries, 5)
    distance, index = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(reference).kneighbors(queries)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, atol=1e-5)
    alone = search.query(queries[3:4], 5)
    np.testing.assert_array_equal(alone.index[0], found.index[3])
    np.testing.assert_array_equal(alone.distance[0], found.distance[3])


def test_a_search_among_some_cells_returns_positions_in_the_reference() -> None:
    search = NeighborSearch(np.arange(10.0)[:, None])
    found = search.among(np.array([0, 9]), np.array([4, 6, 7]), 2)
    assert found.index.tolist() == [[4, 6], [7, 6]]
    np.testing.assert_allclose(found.distance, [[4.0, 6.0], [2.0, 3.0]])
