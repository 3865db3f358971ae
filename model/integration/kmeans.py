"""Lloyd's k-means with the start of k-means++: small, seeded, and without scikit-learn, which serving does not need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 25
_BLOCK = 4096


def kmeans(rows: NDArray[np.float64], count: int, *, seed: int = 0) -> NDArray[np.int32]:
    """Cluster of each row ``[n]``, for ``rows [n, width]``. At most ``count`` clusters.

    Example:
        >>> len(set(kmeans(np.array([[0.0], [0.1], [5.0]]), 2)))
        2
    """
    return nearest_centroid(rows, centroids_of(rows, count, seed=seed))


def centroids_of(rows: NDArray[np.float64], count: int, *, seed: int = 0) -> NDArray[np.float64]:
    """``[<= count, width]`` centroids."""
    random = np.random.default_rng(seed)
    count = min(count, len(rows))
    # k-means++: far rows are likely to start a cluster.
    chosen = [int(random.integers(len(rows)))]
    squared = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and squared.sum() > 0:
        chosen.append(int(random.choice(len(rows), p=squared / squared.sum())))
        squared = np.minimum(squared, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    centroids = rows[chosen].astype(np.float64)
    for _ in range(STEPS):
        member = nearest_centroid(rows, centroids)
        sums = np.zeros_like(centroids)
        np.add.at(sums, member, rows)
        size = np.bincount(member, minlength=len(centroids))[:, None]
        moved = np.where(size > 0, sums / np.maximum(size, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def nearest_centroid(rows: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.int32]:
    """Position of the nearest centroid of each row; the first of several."""
    norms = (centroids**2).sum(axis=1)
    parts = [
        (norms - 2 * rows[start : start + _BLOCK] @ centroids.T).argmin(axis=1) for start in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(parts).astype(np.int32)
