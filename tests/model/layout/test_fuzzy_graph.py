from __future__ import annotations

import numpy as np
from scipy import sparse
from umap.umap_ import fuzzy_simplicial_set

from scpalm.model.layout.fuzzy_graph import fuzzy_graph
from scpalm.model.neighbors import nearest
from tests.training.evaluation.blobs import blobs


def test_fuzzy_graph_agrees_with_umap() -> None:
    """scanpy.pp.neighbors calls the same function of umap with the same arguments."""
    array, _ = blobs((60, 50, 40))
    neighbors = nearest(array, 30)
    index = np.column_stack([np.arange(len(array)), neighbors.index[:, :14]])
    distance = np.column_stack([np.zeros(len(array)), neighbors.distance[:, :14]])
    theirs, _, _ = fuzzy_simplicial_set(
        sparse.coo_matrix((len(array), 1)), 15, None, None, knn_indices=index, knn_dists=distance
    )
    ours = fuzzy_graph(neighbors, 15)
    assert np.abs((ours - theirs).toarray()).max() < 1e-4


def test_fuzzy_graph_is_symmetric_with_weights_up_to_one() -> None:
    array, _ = blobs()
    array[:30] = array[0]  # more duplicates than neighbours
    graph = fuzzy_graph(nearest(array, 30), 15)
    assert (graph != graph.T).nnz == 0
    assert graph.data.min() > 0
    assert graph.data.max() <= 1
    assert graph.diagonal().sum() == 0
    assert graph[0].toarray().max() == 1
