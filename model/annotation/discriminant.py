"""Linear discriminant analysis with a regularised covariance: distances of cells to the centroids of labels.

Friedman, J. H. (1989), "Regularized discriminant analysis", without class covariances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Least share of the identity in the covariance. The view head has seen the labels of the reference, so cells of a label
# vary less there than in new data, and a covariance that trusts them (0.1) names new data badly. Chosen on training
# sets that were left out of the reference: mean accuracy 0.750 with 0.1, 0.770 with 0.5, 0.811 with 0.9.
SHRINKAGE = 0.9


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Centroids in a space in which the covariance within labels is the identity.

    Attributes:
        projection: ``[D, D]``, from the embedding to that space.
        centroids: ``[L, D]`` of the labels.
        groups: ``[E, D]`` centroids of the groups of cells that the labels consist of.
        label_of_group: ``[E]`` int32.
    """

    projection: NDArray[np.float32]
    centroids: NDArray[np.float32]
    groups: NDArray[np.float32]
    label_of_group: NDArray[np.int32]

    @classmethod
    def fit(
        cls, array: NDArray[np.floating], labels: NDArray[np.int32], groups: NDArray[np.int32] | None = None
    ) -> Discriminant:
        """Fit to R labelled cells ``[R, D]``.

        The centroid of a label is the mean of the centroids of its groups, so that a large data set does not outweigh
        the others.

        Args:
            array: the cells.
            labels: ``[R]`` codes from 0, all of which occur.
            groups: ``[R]`` codes from 0, all of which occur; cells of a group have the same label. Default: the labels.
        """
        wide = np.asarray(array, dtype=np.float64)
        groups = labels if groups is None else groups
        group_means, label_of_group = _means(wide, groups), np.zeros(int(groups.max()) + 1, np.int32)
        label_of_group[groups] = labels
        within = wide - _means(wide, labels)[labels]
        num_cells, width = wide.shape
        covariance = within.T @ within / num_cells
        mean_variance = np.trace(covariance) / width
        if mean_variance <= 0:  # all cells of a label are the same
            mean_variance = max(float(wide.var(axis=0).mean()) * 1e-6, 1e-12)
        share = max(SHRINKAGE, width / (width + num_cells))
        covariance = (1 - share) * covariance + share * mean_variance * np.eye(width)
        projection = np.linalg.inv(np.linalg.cholesky(covariance)).T
        centroids = _means(group_means, label_of_group)
        return cls(
            projection.astype(np.float32),
            (centroids @ projection).astype(np.float32),
            (group_means @ projection).astype(np.float32),
            label_of_group,
        )

    def distances(self, cells: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Squared distances of cells ``[B, D]`` to the labels ``[B, L]`` and to the groups ``[B, E]``."""
        projected = cells @ self.projection.astype(np.float64)
        return _squared(projected, self.centroids), _squared(projected, self.groups)


def _means(array: NDArray[np.float64], codes: NDArray[np.int32]) -> NDArray[np.float64]:
    sums = np.zeros((int(codes.max()) + 1, array.shape[1]))
    np.add.at(sums, codes, array)
    return sums / np.bincount(codes)[:, None]


def _squared(cells: NDArray[np.float64], centroids: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = centroids.astype(np.float64)
    return np.maximum((cells**2).sum(axis=1)[:, None] - 2.0 * cells @ wide.T + (wide**2).sum(axis=1), 0.0)
