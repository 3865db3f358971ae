from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.neighbors import nearest
from scpalm.training.metrics.fuzzy_graph import fuzzy_graph
from tests.training.evaluation.blobs import blobs


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
