"""Annotation: each new cell gets the label whose reference cells are nearest to it in the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotation.calibration import Calibration
from scpalm.model.errors import InputError
from scpalm.model.io.labels import Categories
from scpalm.model.neighbors import NeighborSearch

# A label's score is the mean squared distance to its K nearest cells. Chosen on training sets that were left out of
# the reference.
K = 25
MIN_CELLS = 16
UNKNOWN = "unknown"
# A cell is unknown if its nearest reference cell is farther than SLACK times this quantile of the distances within the
# reference. The factor allows for chemistry and depth, which make distances between data sets larger than within one.
# A calibrated reference has a threshold that was measured instead.
QUANTILE = 0.99
SLACK = 1.5
# Shares are a softmax of scores in this fraction of the reference's variance.
TEMPERATURE = 0.05
_BLOCK_CELLS = 256


@dataclass(frozen=True, eq=False)
class Annotation:
    """Labels predicted for B cells.

    Attributes:
        names: the labels, sorted.
        nearest: ``[B]`` int32 code of the label whose cells are nearest, however far they are.
        second: ``[B]`` int32 code of the label that comes next.
        probability: ``[B]`` that ``nearest`` is right.
        distance: ``[B]`` distance to the nearest reference cell.
        closest: ``[B]`` position of the nearest reference cell that has the label ``nearest``.
        threshold: a cell beyond this distance is unknown.
    """

    names: tuple[str, ...]
    nearest: NDArray[np.int32]
    second: NDArray[np.int32]
    probability: NDArray[np.float64]
    distance: NDArray[np.float64]
    closest: NDArray[np.int64]
    threshold: float

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """``[B]`` whether a cell is too far from the reference."""
        return self.distance > self.threshold

    @property
    def nearest_label(self) -> NDArray[np.object_]:
        """``[B]`` names of ``nearest``."""
        return np.array(self.names, dtype=object)[self.nearest]

    @property
    def label(self) -> NDArray[np.object_]:
        """``[B]`` the nearest label, 'unknown' for cells that are too far from the reference."""
        return np.where(self.unknown, UNKNOWN, self.nearest_label)


class Reference:
    """Labelled cells that new cells are compared with.

    Attributes:
        names: the labels, sorted.
        width: width of the embedding.
        calibration: how scores become probabilities, and the distance beyond which a cell is unknown.

    Example:
        >>> cells = np.eye(3).repeat(10, axis=0)
        >>> Reference(cells, Categories.of(["B"] * 10 + ["NK"] * 10 + ["T"] * 10)).annotate(cells[:1]).label
        array(['B'], dtype=object)
    """

    def __init__(self, array: NDArray[np.floating], labels: Categories, calibration: Calibration | None = None) -> None:
        """Build a reference from R embedded cells ``[R, D]``. Cells without a label are dropped.

        Without a calibration, probabilities are shares of the scores, and the threshold is 1.5 times the 99th
        percentile of the distances from a reference cell to its nearest neighbour.

        Raises:
            InputError: the lengths differ, a number is not finite, too few cells are labelled, or all labels are the
                same.
        """
        if len(array) != len(labels.codes):
            raise InputError(
                "length-mismatch",
                f"The reference has {len(array)} cells and {len(labels.codes)} labels.",
                hint="Give one label per cell.",
            )
        kept = np.flatnonzero(labels.codes >= 0)
        # By label, so that the cells of each label are a slice.
        self._order = kept[np.argsort(labels.codes[kept], kind="stable")]
        wide = np.asarray(array, dtype=np.float64)[self._order]
        codes = labels.codes[self._order]
        _require_finite(wide, "reference")
        if len(wide) < MIN_CELLS:
            raise InputError(
                "too-few-cells",
                f"The reference has {len(wide)} labelled cells, but at least {MIN_CELLS} are needed.",
                hint="Use a reference with more labelled cells, or choose another column of labels.",
            )
        present = np.unique(codes)
        if len(present) < 2:
            raise InputError(
                "single-label",
                f"All labelled cells of the reference have the label '{labels.names[present[0]]}'.",
                hint="Choose a column with at least two different labels.",
            )
        self.names = tuple(labels.names[code] for code in present)
        self.width = wide.shape[1]
        self._search = NeighborSearch(wide)
        starts = [*np.searchsorted(codes, present).tolist(), len(codes)]
        self._slices = [slice(start, stop) for start, stop in pairwise(starts)]
        self._scale = max(TEMPERATURE * float(wide.var(axis=0).sum()), np.finfo(np.float64).tiny)
        self.calibration = calibration or Calibration(1.0, 0.0, self._spread())

    def _spread(self) -> float:
        nearest_other = self._search.others(1).distance[:, 0]
        return float(np.quantile(nearest_other, QUANTILE)) * SLACK

    def annotate(self, array: NDArray[np.floating]) -> Annotation:
        """Label cells ``[B, D]``. A cell's answer does not depend on the other cells.

        Each label's score is the mean squared distance to its 25 nearest reference cells, or to all of its cells if
        there are fewer. The label with the smallest score wins; a tie goes to the label that sorts first.

        Raises:
            InputError: the width differs from the reference's, or a number is not finite.
        """
        wide = np.asarray(array, dtype=np.float64)
        if wide.ndim != 2 or wide.shape[1] != self.width:
            raise InputError(
                "embedding-shape",
                f"The cells have shape {wide.shape}, but the reference has width {self.width}.",
                hint="Embed both with the same model.",
            )
        _require_finite(wide, "query")
        parts = [self._annotate(wide[start : start + _BLOCK_CELLS]) for start in range(0, len(wide), _BLOCK_CELLS)]
        nearest, second, share, distance, closest = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Annotation(
            self.names,
            nearest.astype(np.int32),
            second.astype(np.int32),
            self.calibration.probability(share),
            distance,
            closest,
            self.calibration.threshold,
        )

    def _annotate(self, cells: NDArray[np.float64]) -> tuple[NDArray[np.generic], ...]:
        """Nearest and second label, share, distance and closest cell of each of some cells."""
        squared = self._search.squared_distances(cells)  # [B, R]
        scores = np.empty((len(cells), len(self.names)))
        closest = np.empty((len(cells), len(self.names)), dtype=np.int64)
        for code, positions in enumerate(self._slices):
            part = squared[:, positions]
            num = min(K, part.shape[1])
            scores[:, code] = np.sort(np.partition(part, num - 1, axis=1)[:, :num], axis=1).mean(axis=1)
            closest[:, code] = self._order[positions.start + part.argmin(axis=1)]
        ranks = np.argsort(scores, axis=1, kind="stable")
        rows, nearest, second = np.arange(len(cells)), ranks[:, 0], ranks[:, 1]
        weights = np.exp((scores[rows, nearest][:, None] - scores) / self._scale)
        share = 1.0 / weights.sum(axis=1)
        return nearest, second, share, np.sqrt(squared.min(axis=1)), closest[rows, nearest]


def _require_finite(array: NDArray[np.float64], role: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(
            "not-finite",
            f"The embedding of {role} cell {bad[0]} is not finite.",
            hint="Check that the bundle is intact.",
        )
