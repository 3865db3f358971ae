"""Map new cells onto an integrated reference without changing it (as Symphony, Kang et al. 2021).

Letters: B new cells, C reference cells, K clusters of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.integration.integrate import (
    SEED,
    WIDTH,
    check_batches,
    fit_axes,
    unit,
    weigh,
)
from scpalm.model.integration.kmeans import centroids_of
from scpalm.model.io.labels import Categories
from scpalm.model.neighbors import NeighborSearch

NEIGHBORS = 15
_SIGMA = 0.1  # of the soft clusters, as in Harmony
_RIDGE = 1.0
# Reference cells that new cells are compared with to choose how to align a batch.
_MOST_CELLS = 4000


@dataclass(frozen=True, eq=False)
class IntegratedReference:
    """Cells that have been integrated.

    Attributes:
        embedding: ``[C, R + H]`` as before integration. integrated: ``[C, WIDTH]``. batches: of each cell.
        num_components: R.
    """

    embedding: NDArray[np.float32]
    integrated: NDArray[np.float32]
    batches: Categories
    num_components: int

    def __post_init__(self) -> None:
        if self.integrated.shape != (len(self.embedding), WIDTH):
            raise InputError(
                "other-reference",
                f"X_scpalm_integrated of the reference has shape {self.integrated.shape}, not "
                f"{(len(self.embedding), WIDTH)}.",
                hint="Integrate the reference again with this release.",
            )
        check_batches(self.batches)


@dataclass(frozen=True, eq=False)
class Mapped:
    """New cells among those of a reference.

    Attributes:
        values: ``[B, WIDTH]`` in the space of the reference's integrated embedding.
        nearest: ``[B, NEIGHBORS]`` positions of the nearest reference cells.
        distance: ``[B]`` mean distance to them, divided by what reference cells have among themselves; far above 1
            for cells that the reference does not hold.
    """

    values: NDArray[np.float32]
    nearest: NDArray[np.int64]
    distance: NDArray[np.float32]


def map_onto(embedding: NDArray[np.float32], batches: Categories, reference: IntegratedReference) -> Mapped:
    """Map cells with ``embedding [B, R + H]`` and their batches. Seeded; the reference does not change."""
    axes = fit_axes(reference.embedding, reference.num_components, reference.batches)
    new = weigh(embedding, reference.num_components)
    target = reference.integrated.astype(np.float64)
    search = NeighborSearch(_some(target))
    start = np.zeros((len(new), WIDTH))
    for batch in range(len(batches.names)):
        rows = batches.codes == batch
        # Centring a batch of few types would move it onto other types, so take what lies closer to the reference.
        shifted = new[rows] - new[rows].mean(axis=0) + axes.mean
        placed = [axes.project(new[rows]), axes.project(shifted)]
        start[rows] = min(placed, key=lambda scores: float(search.query(_some(unit(scores)), 1).distance.mean()))
    values = unit(_correct(start, batches, target)).astype(np.float32)
    found = NeighborSearch(target).query(values, min(NEIGHBORS, len(target)))
    usual = search.others(min(NEIGHBORS, len(_some(target)) - 1)).distance.mean()
    return Mapped(values, found.index, (found.distance.mean(axis=1) / max(usual, 1e-12)).astype(np.float32))


def _some(array: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(array) <= _MOST_CELLS:
        return array
    return array[np.sort(np.random.default_rng(SEED).choice(len(array), _MOST_CELLS, replace=False))]


def _correct(start: NDArray[np.float64], batches: Categories, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract each batch's offset from the reference in each soft cluster, by ridge regression."""
    rows = _some(target)
    centroids = unit(centroids_of(rows, int(np.clip(round(len(rows) / 30), 2, 100)), seed=SEED))
    new, old = _memberships(start, centroids), _memberships(target, centroids)  # [B, K], [C, K]
    corrected = start.copy()
    for k in range(len(centroids)):
        weight = np.array([old[:, k].sum(), *(new[batches.codes == b, k].sum() for b in range(len(batches.names)))])
        sums = [old[:, k] @ target]
        sums += [new[batches.codes == b, k] @ start[batches.codes == b] for b in range(len(batches.names))]
        # Unknowns: the mean of the cluster, then one offset per batch; only the offsets are shrunk.
        normal = np.diag([weight.sum(), *(weight[1:] + _RIDGE)])
        normal[0, 1:] = normal[1:, 0] = weight[1:]
        right = np.stack([np.sum(sums, axis=0), *sums[1:]])
        offsets = np.linalg.solve(normal + 1e-9 * np.eye(len(normal)), right)[1:]
        corrected -= new[:, [k]] * offsets[batches.codes]
    return corrected


def _memberships(array: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = -2 * (1 - unit(array) @ centroids.T) / _SIGMA
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def carry_labels(mapped: Mapped, labels: Categories) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The label that most of a cell's nearest reference cells have, ``[B]``, and the share that has it.

    -1 for cells none of whose neighbours has a label. Ties go to the label that comes first.
    """
    codes = labels.codes[mapped.nearest]
    counts = np.stack([(codes == label).sum(axis=1) for label in range(len(labels.names))], axis=1)
    share = counts.max(axis=1) / codes.shape[1]
    return np.where(share > 0, counts.argmax(axis=1), -1).astype(np.int32), share.astype(np.float32)
