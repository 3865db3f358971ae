"""The layout of UMAP (McInnes et al. 2018, section 4): stochastic gradient descent on a fuzzy graph, in NumPy.

All edges of an epoch move together, as in cuML. umap-learn moves them one after the other, in code that numba compiles
in every process. That takes longer than a whole layout of 3,000 cells here (docs/explain/measurements.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

# Similarity 1 / (1 + A d^(2 B)), fitted to min_dist 0.5 and spread 1, scanpy's defaults.
_A, _B = 0.5830300205483709, 1.334166992455648
_NEGATIVES = 5  # random cells that push each edge's cell away
_LARGEST_STEP = 4.0
_EXTENT = 10.0  # of the start
_NOISE = 1e-4  # separates cells that start at the same point

_Points = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Edges:
    """Edges in both directions, by their first cell. ``period``: epochs between two uses of an edge."""

    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    period: NDArray[np.float64]

    @classmethod
    def of(cls, graph: sparse.csr_matrix, num_epochs: int) -> _Edges:
        table = graph.tocoo()
        weight = table.data / table.data.max()
        used = weight >= 1.0 / num_epochs  # the others would not be used once
        return cls(table.row[used].astype(np.int64), table.col[used].astype(np.int64), 1.0 / weight[used])


def optimize(
    graph: sparse.csr_matrix,
    start: NDArray[np.floating],
    num_epochs: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Positions ``[cells, 2]`` in which cells with heavy edges are close.

    Args:
        graph: symmetric weights in (0, 1] ``[cells, cells]``, at least one.
        start: positions to start from ``[cells, 2]``.
        num_epochs: number of passes over the edges.
        rng: source of randomness. The same one gives the same positions.
        progress: called with the finished share after every epoch.
    """
    edges = _Edges.of(graph, num_epochs)
    points = _spread(start, rng)
    due = edges.period.copy()
    for epoch in range(num_epochs):
        rate = 1.0 - epoch / num_epochs
        active = np.flatnonzero(due <= epoch + 1)
        due[active] += edges.period[active]
        _step(points, edges.head[active], edges.tail[active], rate, rng)
        progress((epoch + 1) / num_epochs)
    return points - points.mean(axis=0)


def _spread(start: NDArray[np.floating], rng: np.random.Generator) -> _Points:
    low, high = start.min(axis=0), start.max(axis=0)
    scaled = _EXTENT * (start - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return (scaled + rng.normal(scale=_NOISE, size=start.shape)).astype(np.float32)


def _step(
    points: _Points, head: NDArray[np.int64], tail: NDArray[np.int64], rate: float, rng: np.random.Generator
) -> None:
    """Pull the two cells of each edge together, and push the first one away from random cells. In place."""
    pull = _attraction(points[head] - points[tail])
    pushed = np.repeat(head, _NEGATIVES)
    push = _repulsion(points[pushed] - points[rng.integers(len(points), size=len(pushed))])
    for axis in range(points.shape[1]):
        moved = np.bincount(head, pull[:, axis], len(points))
        moved -= np.bincount(tail, pull[:, axis], len(points))
        moved += np.bincount(pushed, push[:, axis], len(points))
        points[:, axis] += (rate * moved).astype(np.float32)


def _attraction(difference: _Points) -> _Points:
    squared = np.einsum("ij,ij->i", difference, difference)
    powered = np.power(squared, np.float32(_B))
    slope = np.divide(-2 * _A * _B * powered, squared, out=np.zeros_like(squared), where=squared > 0)
    return _clipped((slope / (1 + _A * powered))[:, None] * difference)


def _repulsion(difference: _Points) -> _Points:
    squared = np.einsum("ij,ij->i", difference, difference)
    slope = 2 * _B / ((0.001 + squared) * (1 + _A * np.power(squared, np.float32(_B))))
    return _clipped(slope[:, None] * difference)


def _clipped(step: _Points) -> _Points:
    return np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
