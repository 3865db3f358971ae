"""How much batches overlap: how many of a cell's neighbours come from other batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.neighbors import NeighborSearch

NEIGHBORS = 15
# Neighbours of at most this many cells are counted, among at most as many.
MOST_CELLS = 4000


def overlap(array: NDArray[np.floating], batch: NDArray[np.int32], num_batches: int) -> NDArray[np.float64]:
    """``[num_batches]`` share of neighbours from other batches, as a share of what well-mixed cells would have.

    0: a batch lies alone. 1: its cells lie among those of the others as if batches had been drawn by lot.

    Args:
        array: ``[B, width]`` an embedding. batch: ``[B]`` batch of each cell.

    Example:
        >>> overlap(np.array([[0.0], [0.1], [9.0], [9.1]]), np.array([0, 0, 1, 1]), 2)
        array([0., 0.])
    """
    if len(array) > MOST_CELLS:
        chosen = np.sort(np.random.default_rng(0).choice(len(array), MOST_CELLS, replace=False))
        array, batch = array[chosen], batch[chosen]
    num = min(NEIGHBORS, max(1, len(array) // 4))
    found = NeighborSearch(array).others(num).index
    share = np.bincount(batch, minlength=num_batches) / len(batch)
    others = (batch[found] != batch[:, None]).mean(axis=1)
    mixed = np.minimum(others / np.maximum(1 - share[batch], 1e-12), 1.0)
    sums = np.bincount(batch, weights=mixed, minlength=num_batches)
    return np.asarray(sums / np.maximum(np.bincount(batch, minlength=num_batches), 1))
