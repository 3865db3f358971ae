"""Annotation: each new cell gets the label whose centroid is nearest, unless no reference cell is close to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.annotation.calibration import Calibration
from scpalm.model.annotation.discriminant import Discriminant
from scpalm.model.errors import InputError
from scpalm.model.io.labels import Categories
from scpalm.model.neighbors import NeighborSearch

MIN_CELLS = 16
UNKNOWN = "unknown"
# A cell is unknown if its nearest reference cell is farther than SLACK times this quantile of the distances within the
# reference. The factor allows for chemistry and depth, which make distances between data sets larger than within one.
# It was chosen on training sets. The reference of a bundle has a threshold that was measured instead.
QUANTILE = 0.99
SLACK = 1.5
# Shares are a softmax of half the squared distances, times this factor: the covariance explains too little of the
# difference between data sets.
SHARPNESS = 0.1
# Probabilities are rounded, so that sums in another order change no bit of them.
DECIMALS = 4
_BLOCK_CELLS = 256


@dataclass(frozen=True, eq=False)
class Annotation:
    """Labels predicted for B cells.

    Attributes:
        names: the labels, sorted.
        nearest: ``[B]`` int32 code of the nearest label, however far it is.
        second: ``[B]`` int32 code of the label that comes next.
        probability: ``[B]`` that ``nearest`` is right.
        distance: ``[B]`` distance to the nearest reference cell.
        group: ``[B]`` int32 code of the nearest group of reference cells that have the label ``nearest``.
        threshold: a cell beyond this distance is unknown.
    """

    names: tuple[str, ...]
    nearest: NDArray[np.int32]
    second: NDArray[np.int32]
    probability: NDArray[np.float64]
    distance: NDArray[np.float64]
    group: NDArray[np.int32]
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
        discriminant: the centroids of the labels.
        calibration: how shares become probabilities, and the distance beyond which a cell is unknown.

    Example:
        >>> cells = np.eye(3).repeat(10, axis=0)
        >>> Reference.of(cells, Categories.of(["B"] * 10 + ["NK"] * 10 + ["T"] * 10)).annotate(cells[:1]).label
        array(['B'], dtype=object)
    """

    def __init__(
        self,
        names: tuple[str, ...],
        cells: NDArray[np.floating],
        discriminant: Discriminant,
        calibration: Calibration | None = None,
    ) -> None:
        """A reference from its parts. ``cells [R, D]`` are those that distances are measured to.

        Without a calibration, probabilities are shares, and the threshold is 1.5 times the 99th percentile of the
        distances from a reference cell to its nearest neighbour.
        """
        self.names = names
        self.discriminant = discriminant
        self.width = cells.shape[1]
        self._search = NeighborSearch(cells)
        self.calibration = calibration or Calibration(1.0, 0.0, self._spread())

    @classmethod
    def of(cls, array: NDArray[np.floating], labels: Categories, calibration: Calibration | None = None) -> Reference:
        """Fit a reference to R embedded cells ``[R, D]``. Cells without a label are left out.

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
        kept = labels.codes >= 0
        wide = np.asarray(array, dtype=np.float64)[kept]
        _require_finite(wide, "reference")
        if len(wide) < MIN_CELLS:
            raise InputError(
                "too-few-cells",
                f"The reference has {len(wide)} labelled cells, but at least {MIN_CELLS} are needed.",
                hint="Use a reference with more labelled cells, or choose another column of labels.",
            )
        present, codes = np.unique(labels.codes[kept], return_inverse=True)
        names = tuple(labels.names[code] for code in present)
        if len(names) < 2:
            raise InputError(
                "single-label",
                f"All labelled cells of the reference have the label '{names[0]}'.",
                hint="Choose a column with at least two different labels.",
            )
        return cls(names, wide, Discriminant.fit(wide, codes.astype(np.int32)), calibration)

    def _spread(self) -> float:
        nearest_other = self._search.others(1).distance[:, 0]
        return float(np.quantile(nearest_other, QUANTILE)) * SLACK

    def annotate(self, array: NDArray[np.floating]) -> Annotation:
        """Label cells ``[B, D]`` by the nearest centroid. A cell's answer does not depend on the other cells.

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
        nearest, second, share, group = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Annotation(
            self.names,
            nearest.astype(np.int32),
            second.astype(np.int32),
            np.round(self.calibration.probability(share.astype(np.float64)), DECIMALS),
            self._search.query(wide, 1).distance[:, 0],
            group.astype(np.int32),
            self.calibration.threshold,
        )

    def _annotate(self, cells: NDArray[np.float64]) -> tuple[NDArray[np.generic], ...]:
        """Nearest label, second label, share of the nearest, and nearest group of that label."""
        to_labels, to_groups = self.discriminant.distances(cells)
        ranks = np.argsort(to_labels, axis=1, kind="stable")
        nearest, second = ranks[:, 0], ranks[:, 1]
        best = to_labels[np.arange(len(cells)), nearest]
        share = 1.0 / np.exp(SHARPNESS / 2 * (best[:, None] - to_labels)).sum(axis=1)
        elsewhere = self.discriminant.label_of_group[None, :] != nearest[:, None]
        return nearest, second, share, np.where(elsewhere, np.inf, to_groups).argmin(axis=1)


def _require_finite(array: NDArray[np.float64], role: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(
            "not-finite",
            f"The embedding of {role} cell {bad[0]} is not finite.",
            hint="Check that the bundle is intact.",
        )
