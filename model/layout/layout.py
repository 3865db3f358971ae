"""From the embedding of cells to a layout and clusters: neighbours, fuzzy graph, Leiden, UMAP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.layout.fuzzy_graph import fuzzy_graph
from scpalm.model.layout.optimize import optimize
from scpalm.model.neighbors import Neighbors, NeighborSearch

NUM_NEIGHBORS = 15  # as scanpy: the cell itself and 14 others
# Of more cells than this, a sample of this size is laid out and the others are placed next to their neighbours.
MOST_CELLS = 20_000
# Above this number, neighbours are searched among 64 principal components, and there are fewer epochs.
FEW_CELLS = 8_192
_COMPONENTS = 64
_EPOCHS_OF_FEW, _EPOCHS = 300, 200
_QUERY_CELLS = 10_000


@dataclass(frozen=True)
class LayoutOptions:
    """How to lay out cells.

    Attributes:
        resolution: of Leiden; higher gives more clusters.
        seed: of everything random.
    """

    resolution: float = 1.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Layout:
    """A layout of B cells.

    Attributes:
        positions: ``[B, 2]`` float32.
        clusters: ``[B]`` int32, from 0; the largest cluster is 0.
        num_laid_out: cells that were laid out; the others were placed next to their neighbours.
    """

    positions: NDArray[np.float32]
    clusters: NDArray[np.int32]
    num_laid_out: int


def lay_out(
    embedding: NDArray[np.float32], options: LayoutOptions, progress: Callable[[float], None] = lambda _: None
) -> Layout:
    """Lay out and cluster the cells of ``embedding [B, width]``. The same input gives the same bits on one machine.

    ``progress`` is called with the finished share, from 0 to 1.
    """
    num_cells = len(embedding)
    if num_cells < 4:  # there is no graph to speak of
        line = np.column_stack([np.arange(num_cells), np.zeros(num_cells)]).astype(np.float32)
        return Layout(line, np.zeros(num_cells, np.int32), num_cells)
    rng = np.random.default_rng(options.seed)
    chosen = np.arange(num_cells)
    if num_cells > MOST_CELLS:
        chosen = np.sort(rng.choice(num_cells, MOST_CELLS, replace=False))
    components = principal_components(embedding[chosen], _COMPONENTS)
    start = (embedding[chosen] @ components[:, :2]).astype(np.float64)
    if num_cells > FEW_CELLS:
        embedding = embedding @ components
    core = embedding[chosen]
    search = NeighborSearch(core)
    num_neighbors = min(NUM_NEIGHBORS, len(core))
    graph = fuzzy_graph(search.others(num_neighbors - 1), num_neighbors)
    progress(0.1)
    clusters = leiden(graph, options)
    num_epochs = _EPOCHS_OF_FEW if num_cells <= FEW_CELLS else _EPOCHS
    end = 0.6 if num_cells > MOST_CELLS else 1.0
    positions = optimize(graph, start, num_epochs, rng, lambda share: progress(0.1 + (end - 0.1) * share))
    if len(chosen) == num_cells:
        return Layout(positions, clusters, num_cells)
    placed = _place_rest(embedding, chosen, search, (positions, clusters), lambda share: progress(end + 0.4 * share))
    return Layout(*placed, len(chosen))


def leiden(graph: sparse.csr_matrix, options: LayoutOptions) -> NDArray[np.int32]:
    """Clusters ``[cells]`` of a graph by modularity (Traag et al. 2019), the largest first.

    scikit-network's Leiden reaches the modularity of igraph's, which is under the GPL (docs/explain/measurements.md).
    """
    from sknetwork.clustering import Leiden

    found = Leiden(resolution=options.resolution, modularity="newman", random_state=options.seed)
    labels: NDArray[np.int32] = found.fit_predict(graph).astype(np.int32)
    return labels


def principal_components(array: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """The first principal axes ``[width, num]``; the sign of each makes its largest entry positive."""
    centred = array - array.mean(axis=0, dtype=np.float64)
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :num]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return np.asarray(vectors * signs, dtype=np.float32)


def _place_rest(
    embedding: NDArray[np.float32],
    chosen: NDArray[np.int64],
    search: NeighborSearch,
    core: tuple[NDArray[np.float32], NDArray[np.int32]],
    progress: Callable[[float], None],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Positions and clusters of all cells, given those of the ``chosen`` ones, by a cell's neighbours among them."""
    positions = np.empty((len(embedding), 2), dtype=np.float32)
    clusters = np.empty(len(embedding), dtype=np.int32)
    positions[chosen], clusters[chosen] = core
    rest = np.setdiff1d(np.arange(len(embedding)), chosen)
    for start in range(0, len(rest), _QUERY_CELLS):
        rows = rest[start : start + _QUERY_CELLS]
        near = search.query(embedding[rows], 5)
        weight = _weights(near)
        positions[rows] = (core[0][near.index] * weight[:, :, None]).sum(axis=1)
        clusters[rows] = _heaviest(core[1][near.index], weight)
        progress(min(1.0, (start + len(rows)) / len(rest)))
    return positions, clusters


def _weights(near: Neighbors) -> NDArray[np.float64]:
    """``[cells, num]`` weights that sum to 1 and fall with the distance."""
    scale = np.maximum(near.distance.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    weight = np.exp(-near.distance / scale)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _heaviest(labels: NDArray[np.int32], weight: NDArray[np.float64]) -> NDArray[np.int32]:
    """``[cells]`` the label with the largest sum of weights in each row."""
    same = labels[:, :, None] == labels[:, None, :]
    best = np.einsum("ijk,ik->ij", same, weight).argmax(axis=1)
    return np.asarray(labels[np.arange(len(labels)), best])
