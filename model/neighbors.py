"""Exact nearest neighbours by brute force: the only k-nearest-neighbours search in the project.

The search is deterministic: ties go to the lower position, and a cell's neighbours do not depend on the other cells of
the query. Approximate indexes do not guarantee that, and float32 searches break ties differently on each machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 1024
# Squared distances are rounded to this fraction of the mean squared norm, so that ties are ties on every machine. It is
# far above the rounding error of float64 sums and far below any difference that matters.
TIE_RESOLUTION = 1e-10


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest reference cells of each cell, nearest first; cells at equal distance in order of position.

    Attributes:
        index: ``[cells, num]`` int64 positions in the reference.
        distance: ``[cells, num]`` float64 Euclidean distances.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


def nearest(array: NDArray[np.floating], num: int) -> Neighbors:
    """The ``num`` nearest other cells of each cell in ``array [cells, width]``.

    Raises:
        ValueError: ``num`` is not between 1 and ``cells - 1``.

    Example:
        >>> nearest(np.array([[0.0], [1.0], [3.0]]), 1).index.tolist()
        [[1], [0], [1]]
    """
    cells = len(array)
    if not 1 <= num <= cells - 1:
        raise ValueError(f"Cannot find {num} neighbours among {cells} cells: choose 1 to {cells - 1}.")
    return NeighborSearch(array).others(num)


class NeighborSearch:
    """Searches a set of reference cells, in float64 and in blocks of 1,024 query rows."""

    def __init__(self, reference: NDArray[np.floating]) -> None:
        """``reference [cells, width]``, finite."""
        wide = np.asarray(reference, dtype=np.float64)
        self._mean = wide.mean(axis=0)
        # Centring keeps distances and reduces the cancellation in |a|^2 - 2ab + |b|^2.
        self._centred: NDArray[np.float64] = wide - self._mean
        self._norms = np.einsum("ij,ij->i", self._centred, self._centred)
        self._unit = float(self._norms.mean()) * TIE_RESOLUTION

    def query(self, cells: NDArray[np.floating], num: int) -> Neighbors:
        """The ``num`` reference cells nearest to each of ``cells [queries, width]``."""
        rows = np.asarray(cells, dtype=np.float64) - self._mean
        return self._search(rows, num, own=None, among=None)

    def others(self, num: int) -> Neighbors:
        """For each reference cell, its ``num`` nearest other reference cells."""
        return self._search(self._centred, num, own=np.arange(len(self._centred)), among=None)

    def among(self, positions: NDArray[np.int64], allowed: NDArray[np.int64], num: int) -> Neighbors:
        """For the reference cells at ``positions``, the nearest reference cells among ``allowed`` (ascending)."""
        return self._search(self._centred[positions], num, own=None, among=allowed)

    def _search(
        self, rows: NDArray[np.float64], num: int, *, own: NDArray[np.int64] | None, among: NDArray[np.int64] | None
    ) -> Neighbors:
        """``own``: position of each row in the reference, excluded from its result. ``among``: positions to search."""
        index = np.empty((len(rows), num), dtype=np.int64)
        distance = np.empty((len(rows), num), dtype=np.float64)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, len(rows)))
            squared = self._squared_distances(rows[block])
            if own is not None:
                squared[np.arange(len(squared)), own[block]] = np.inf
            if among is not None:
                squared = squared[:, among]
            found, smallest = _smallest(squared, num)
            index[block] = found if among is None else among[found]
            distance[block] = np.sqrt(smallest)
        return Neighbors(index, distance)

    def _squared_distances(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[rows, cells]``, rounded so that ties are exact."""
        squared = rows @ self._centred.T
        squared *= -2.0
        squared += np.einsum("ij,ij->i", rows, rows)[:, None]
        squared += self._norms
        if self._unit > 0:
            np.round(squared / self._unit, out=squared)
            squared *= self._unit
        return np.maximum(squared, 0.0, out=squared)


def _smallest(values: NDArray[np.float64], num: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and values of the ``num`` smallest of each row, ascending, ties to the lower column."""
    kth = np.partition(values, num - 1, axis=1)[:, num - 1]
    index = np.empty((len(values), num), dtype=np.int64)
    for row, limit in enumerate(kth):
        candidates = np.flatnonzero(values[row] <= limit)
        order = np.argsort(values[row, candidates], kind="stable")[:num]
        index[row] = candidates[order]
    return index, np.take_along_axis(values, index, axis=1)
