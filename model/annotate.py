"""Labels of new cells from the nearest labelled ones: reference mapping in the space of h_C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError

K = 15
UNKNOWN = "unknown"
# A cell is too far when it lies farther from the reference than this share of the reference's own cells lie from the
# rest of it. Distances between data sets are larger than within one, by chemistry and depth: hence the factor,
# chosen on training sets: from sorted blood, 0 to 32 % of the cells of six other blood runs are unknown, and 93 to
# 100 % of the cells of skin, lung lines and mixed tissues.
QUANTILE = 0.99
SLACK = 1.5
_BLOCK = 512
_UNLABELLED = frozenset({"", "nan", "none", "na", "unassigned"})


@dataclass(frozen=True, eq=False)
class Annotation:
    """What the reference says of B cells.

    Attributes:
        label: ``[B]``, 'unknown' where the cell is too far. nearest_label: ``[B]`` the label all the same.
        probability: ``[B]`` share of the 15 nearest reference cells that have ``nearest_label``.
        distance: ``[B]`` to the nearest reference cell. threshold: beyond it a cell is unknown.
    """

    label: NDArray[np.object_]
    nearest_label: NDArray[np.object_]
    probability: NDArray[np.float64]
    distance: NDArray[np.float64]
    threshold: float


class Reference:
    """Labelled cells to compare with.

    Attributes:
        threshold: the 99th percentile of the distance from a reference cell to its nearest other one, times 1.5.
    """

    def __init__(self, array: NDArray[np.floating], labels: Sequence[object], *, k: int = K) -> None:
        """``array [R, D]``; cells without a label (empty, NaN, 'unassigned') are left out.

        Raises:
            InputError: lengths that disagree, numbers that are not finite, fewer than k + 1 labelled cells, or a single
                label.
        """
        if len(array) != len(labels):
            raise InputError(
                "length-mismatch",
                f"The reference has {len(array)} cells and {len(labels)} labels.",
                mend="Give one label a cell.",
            )
        text = np.array(["" if value is None else str(value).strip() for value in labels], dtype=object)
        kept = np.array([value.lower() not in _UNLABELLED for value in text], dtype=bool)
        wide = np.asarray(array, dtype=np.float64)[kept]
        _require_finite(wide, "reference")
        if len(wide) <= k:
            raise InputError(
                "too-few-cells",
                f"The reference has {len(wide)} labelled cells, and {k + 1} are needed.",
                mend="Give more labelled cells, or name another column with --label.",
            )
        names, self._codes = np.unique(text[kept].astype(str), return_inverse=True)
        if len(names) < 2:
            raise InputError(
                "single-label",
                f"All labelled cells of the reference are '{names[0]}'.",
                mend="Name a column with two or more labels with --label.",
            )
        self.names = tuple(str(name) for name in names)
        self.k = k
        self._centre = wide.mean(axis=0)
        self._array = wide - self._centre
        self._norms = np.einsum("ij,ij->i", self._array, self._array)
        own = self._nearest(self._array, 1, leave_out=True)[1][:, 0]
        self.threshold = float(np.quantile(own, QUANTILE)) * SLACK

    def annotate(self, array: NDArray[np.floating]) -> Annotation:
        """Majority vote of the k nearest reference cells; a tie goes to the label of the nearer cells.

        Each cell is compared with the reference alone, so its answer does not depend on its company.

        Raises:
            InputError: another width than the reference's, or numbers that are not finite.
        """
        wide = np.asarray(array, dtype=np.float64)
        if wide.ndim != 2 or wide.shape[1] != self._array.shape[1]:
            raise InputError(
                "embedding-shape",
                f"The cells have shape {wide.shape}, the reference has width {self._array.shape[1]}.",
                mend="Embed both with the same model.",
            )
        _require_finite(wide, "query")
        index, distance = self._nearest(wide - self._centre, self.k)
        codes = self._codes[index]
        votes = np.zeros((len(wide), len(self.names)))
        rows = np.arange(len(wide))
        for place in range(self.k):
            # The part below one vote settles ties, the nearest cell first.
            votes[rows, codes[:, place]] += 1.0 + 0.5 ** (place + 2)
        winner = votes.argmax(axis=1)
        nearest = np.array(self.names, dtype=object)[winner]
        far = distance[:, 0] > self.threshold
        probability = (codes == winner[:, None]).mean(axis=1)
        return Annotation(np.where(far, UNKNOWN, nearest), nearest, probability, distance[:, 0], self.threshold)

    def _nearest(
        self, wide: NDArray[np.float64], num: int, *, leave_out: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """``[B, num]`` positions and distances of the nearest reference cells, nearest first, ties to the lower."""
        index = np.empty((len(wide), num), dtype=np.int64)
        distance = np.empty((len(wide), num))
        for start in range(0, len(wide), _BLOCK):
            block = wide[start : start + _BLOCK]
            squared = self._norms - 2.0 * block @ self._array.T + np.einsum("ij,ij->i", block, block)[:, None]
            # Below this lies the noise of the sums; equal distances must be equal.
            squared = np.maximum(np.round(squared, 9), 0.0)
            if leave_out:
                squared[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            order = np.argsort(squared, axis=1, kind="stable")[:, :num]
            index[start : start + len(block)] = order
            distance[start : start + len(block)] = np.sqrt(np.take_along_axis(squared, order, axis=1))
        return index, distance


def _require_finite(array: NDArray[np.float64], what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError(
            "not-finite", f"The embedding of {what} cell {bad[0]} is not finite.", mend="Look for a broken bundle."
        )
