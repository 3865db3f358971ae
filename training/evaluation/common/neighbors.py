"""Exact nearest neighbours of an array, and the fuzzy graph that single-cell clustering runs on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

BLOCK_ROWS = 1024
# Squared distances are rounded to this share of the mean squared norm: far above the noise of float64 sums, far
# below any difference of meaning, so that ties are ties on every machine and fall to the lower index.
TIE_RESOLUTION = 1e-10


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest other cells of each cell, nearest first; equal distances in order of index.

    Attributes:
        index: ``[cells, num]`` int64, never the cell itself.
        distance: ``[cells, num]`` float64, Euclidean.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


def nearest(array: NDArray[np.floating], num: int) -> Neighbors:
    """Exact nearest neighbours by brute force in float64, in blocks of rows.

    Args:
        array: ``[cells, width]``, finite.
        num: neighbours a cell, at most ``cells - 1``.

    Raises:
        ValueError: ``num`` outside 1 to ``cells - 1``.
    """
    cells = len(array)
    if not 1 <= num <= cells - 1:
        raise ValueError(f"{num} neighbours were asked of {cells} cells: ask for 1 to {cells - 1}.")
    centred = centre(array)
    index = np.empty((cells, num), dtype=np.int64)
    distance = np.empty((cells, num), dtype=np.float64)
    for start in range(0, cells, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, cells)
        squared = squared_distances(centred[start:stop], centred)
        squared[np.arange(stop - start), np.arange(start, stop)] = np.inf
        index[start:stop], squared = smallest(squared, num)
        distance[start:stop] = np.sqrt(squared)
    return Neighbors(index, distance)


def centre(array: NDArray[np.floating]) -> NDArray[np.float64]:
    """``[cells, width]`` in float64 with mean 0: distances stay, the cancellation in |a|^2 - 2ab + |b|^2 shrinks."""
    wide = np.asarray(array, dtype=np.float64)
    centred: NDArray[np.float64] = wide - wide.mean(axis=0)
    return centred


def squared_distances(rows: NDArray[np.float64], centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[rows, cells]`` squared Euclidean distances, rounded so that ties are exact."""
    norms = np.einsum("ij,ij->i", centred, centred)
    squared = rows @ centred.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", rows, rows)[:, None]
    squared += norms
    unit = float(norms.mean()) * TIE_RESOLUTION
    if unit > 0:
        np.round(squared / unit, out=squared)
        squared *= unit
    return np.maximum(squared, 0.0, out=squared)


def smallest(values: NDArray[np.float64], num: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and values of the ``num`` smallest of each row, ascending, ties to the lower column."""
    kth = np.partition(values, num - 1, axis=1)[:, num - 1]
    index = np.empty((len(values), num), dtype=np.int64)
    for row, limit in enumerate(kth):
        candidates = np.flatnonzero(values[row] <= limit)
        order = np.argsort(values[row, candidates], kind="stable")[:num]
        index[row] = candidates[order]
    return index, np.take_along_axis(values, index, axis=1)


def fuzzy_graph(neighbors: Neighbors, k: int) -> sparse.csr_matrix:
    """Symmetric edge weights in (0, 1] as of ``scanpy.pp.neighbors(n_neighbors=k, method="umap")``, exact.

    As there, ``k`` counts the cell itself, so each cell brings ``k - 1`` edges. Weights are ``exp((rho - d) / sigma)``,
    rho the distance to the nearest cell elsewhere, sigma such that a cell's weights sum to ``log2(k)``; the two
    directions join by fuzzy union ``a + b - ab``. Rounded to 1e-6. Source: McInnes et al. 2018, UMAP, section 3.

    Returns:
        ``[cells, cells]`` float64.
    """
    distance = neighbors.distance[:, : k - 1]
    index = neighbors.index[:, : k - 1]
    cells, num = distance.shape
    if num != k - 1:
        raise ValueError(f"A graph with k = {k} needs {k - 1} neighbours a cell; there are {num}.")
    positive = np.where(distance > 0, distance, np.inf).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, 0.0)
    excess = np.maximum(distance - rho[:, None], 0.0)
    sigma = _bandwidth(excess, target=float(np.log2(k)))
    # UMAP's floor, with means over k entries: the cell itself counts with distance 0.
    local_mean = distance.sum(axis=1) / k
    floor = 1e-3 * np.where(rho > 0, local_mean, local_mean.mean())
    sigma = np.maximum(sigma, floor)
    weight = np.exp(-np.divide(excess, sigma[:, None], out=np.zeros_like(excess), where=sigma[:, None] > 0))
    rows = np.repeat(np.arange(cells), num)
    directed = sparse.csr_matrix((weight.ravel(), (rows, index.ravel())), shape=(cells, cells))
    union = directed + directed.T - directed.multiply(directed.T)
    graph = sparse.csr_matrix(union)
    graph.data = np.round(graph.data, 6)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def _bandwidth(excess: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """``[cells]`` sigma with ``sum(exp(-excess / sigma)) = target``, by UMAP's bisection (64 steps, tolerance 1e-5)."""
    cells = len(excess)
    low, high, middle = np.zeros(cells), np.full(cells, np.inf), np.ones(cells)
    running = np.ones(cells, dtype=bool)
    for _ in range(64):
        total = np.exp(-excess / middle[:, None]).sum(axis=1)
        running &= np.abs(total - target) >= 1e-5
        above = running & (total > target)
        below = running & (total <= target)
        high[above] = middle[above]
        low[below] = middle[below]
        halved = np.where(np.isinf(high), middle * 2, (low + high) / 2)
        middle = np.where(running, halved, middle)
        # A cell whose neighbours are all as near as the nearest has no solution: sigma falls to 0, as in UMAP.
        middle = np.maximum(middle, np.finfo(np.float64).tiny)
    return middle
