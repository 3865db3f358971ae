from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scpalm.training.evaluation.common.neighbors import fuzzy_graph, nearest
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
    monkeypatch.setattr("scpalm.training.evaluation.common.neighbors.BLOCK_ROWS", 7)
    parts = nearest(array, 20)
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_array_equal(whole.distance, parts.distance)


def test_ties_go_to_the_lower_index_and_never_to_the_cell_itself() -> None:
    # A far offset, so that float noise would break the ties if distances were not rounded.
    array = np.tile(np.array([[1000.1, -77.7]]), (6, 1))
    array[5] += [0.3, 0.4]
    found = nearest(array, 4)
    assert found.index[0].tolist() == [1, 2, 3, 4]
    assert found.index[2].tolist() == [0, 1, 3, 4]
    assert found.index[5].tolist() == [0, 1, 2, 3]
    assert found.distance[:5].tolist() == [[0.0] * 4] * 5
    np.testing.assert_allclose(found.distance[5], 0.5)


def test_too_many_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="ask for 1 to 4"):
        nearest(np.zeros((5, 2)), 5)


def test_fuzzy_graph_agrees_with_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy", reason="scanpy is the oracle of the graph weights: install the extra [dev]")
    anndata = pytest.importorskip("anndata")
    array, _ = blobs((60, 50, 40))
    theirs = anndata.AnnData(array)
    scanpy.pp.neighbors(theirs, n_neighbors=15, use_rep="X", transformer="sklearn")
    ours = fuzzy_graph(nearest(array, 30), 15)
    assert np.abs((ours - theirs.obsp["connectivities"]).toarray()).max() < 1e-4


def test_fuzzy_graph_is_symmetric_with_weights_up_to_one() -> None:
    array, _ = blobs()
    array[:30] = array[0]  # more duplicates than neighbours
    graph = fuzzy_graph(nearest(array, 30), 15)
    assert (graph != graph.T).nnz == 0
    assert graph.data.min() > 0
    assert graph.data.max() <= 1
    assert graph.diagonal().sum() == 0
    assert graph[0].toarray().max() == 1
