"""Evidence of how counts were transformed: which inverse makes the values of a cell multiples of one number.

The counts of a cell are whole numbers. After division by its total and a logarithm they are not, but under the right
inverse all of them are multiples of what one count became. Under a wrong inverse few are. This works on a single cell
and on a selection of genes, and tells how large the total was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_FLOAT32, _FLOAT16 = 2.0**-24, 2.0**-11
_MOST_LEVELS = 400  # distinct values looked at per cell, the smallest
_DIVISORS = 4  # the smallest value may be up to this many counts
_COARSE = 0.06  # share of one count: levels known less precisely tell nothing
_FIT = 0.95  # share of levels that must be whole multiples
_FEW_LEVELS = 4
_LARGEST_LINEAR = 1e15  # larger ones would overflow when squared, and are no counts


def _power(base: float) -> Transform:
    return lambda values: np.expm1(values * np.log(base))


# Inverse of each transform, from normalised counts. The last two are recognised only to be refused.
INVERSES: dict[str, Transform] = {
    "linear": lambda values: values,
    "log": _power(np.e),
    "log2": _power(2.0),
    "log10": _power(10.0),
    "sqrt": np.square,
    "log of log": lambda values: np.expm1(np.expm1(values)),
}


@dataclass(frozen=True)
class Fit:
    """How well the values of one cell fit a transform.

    Attributes:
        levels: distinct values that are known precisely enough to tell.
        hits: those that are whole multiples of the unit.
        unit: what one count became.
        precision: relative error of the unit.
        counts: sum of the cell in units.
    """

    levels: int
    hits: int
    unit: float
    precision: float
    counts: float


def fits_of(values: NDArray[np.float32], *, as_written: bool = False) -> dict[str, Fit]:
    """The fit of each transform to the non-zero values of one cell; transforms that overflow are left out.

    ``as_written``: allow for values that were rounded to a few decimals, or stored in half precision.
    """
    distinct, times = np.unique(values, return_counts=True)
    levels, times = distinct.astype(np.float64), times[:_MOST_LEVELS]
    error = (_rounding(levels) if as_written else levels * _FLOAT32)[:_MOST_LEVELS]
    levels = levels[:_MOST_LEVELS]
    found = {}
    for name, inverse in INVERSES.items():
        with np.errstate(over="ignore", invalid="ignore"):
            linear, above = inverse(levels), inverse(levels + error)
        if linear[0] > 0 and above[-1] < _LARGEST_LINEAR:
            found[name] = _fit(linear, above - linear, times)
    return found


def _rounding(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest error of each value, from the precision in which it seems to be written."""
    decimals = decimals_of(levels.astype(np.float32))
    if decimals is not None:
        return np.full(len(levels), 0.5 / 10**decimals)
    with np.errstate(over="ignore"):
        half = levels.astype(np.float16).astype(np.float64) == levels
    return levels * (_FLOAT16 if half.all() else _FLOAT32)


def _fit(linear: NDArray[np.float64], error: NDArray[np.float64], times: NDArray[np.int64]) -> Fit:
    best = Fit(0, 0, float(linear[0]), 1.0, 0.0)
    for divisor in range(1, _DIVISORS + 1):
        unit = linear[0] / divisor
        multiple = np.rint(linear / unit)
        # Errors of the level itself and of the unit, which is known as well as the smallest level.
        slack = 3 * (error / unit + multiple * error[0] / linear[0])
        clear = slack < _COARSE
        clear[0] = False
        hit = clear & (np.abs(linear / unit - multiple) <= np.maximum(slack, 1e-3))
        levels, hits = int(clear.sum()), int(hit.sum())
        if divisor == 1 or hits / max(1, levels) > best.hits / max(1, best.levels) + 0.02:
            used = hit | (np.arange(len(linear)) == 0)
            refined = float((linear * multiple)[used].sum() / (multiple**2)[used].sum())
            spread = float(np.sqrt(((error * multiple)[used] ** 2).sum()) / (linear * multiple)[used].sum())
            best = Fit(levels, hits, refined, spread + _FLOAT32 / 4, float((multiple * times).sum()))
    return best


def sampled_rows(num_cells: int, most: int) -> NDArray[np.int64]:
    """Up to ``most`` evenly spaced rows, always with the first."""
    return np.unique(np.linspace(0, num_cells - 1, min(most, num_cells)).astype(np.int64))


@dataclass(frozen=True)
class Evidence:
    """Fits of some cells of a matrix.

    Attributes:
        rows: the cells.
        fits: fits of each cell.
        rounded: whether the values fit only if they were rounded when they were written.
    """

    rows: NDArray[np.int64]
    fits: Sequence[dict[str, Fit]]
    rounded: bool = False

    @classmethod
    def of(cls, matrix: CellMatrix, most: int) -> Evidence:
        """Look at up to ``most`` cells that have values."""
        rows = [row for row in sampled_rows(matrix.num_cells, most) if matrix.indptr[row + 1] > matrix.indptr[row]]
        parts = (matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]] for row in rows)
        kept = [(row, values[values > 0]) for row, values in zip(rows, parts, strict=True)]
        kept = [(row, values) for row, values in kept if len(values)]
        numbers = np.array([row for row, _ in kept], np.int64)
        exact = cls(numbers, [fits_of(values) for _, values in kept])
        if exact.transform() is not None:
            return exact
        rounded = cls(numbers, [fits_of(values, as_written=True) for _, values in kept], rounded=True)
        return rounded if rounded.transform() is not None else exact

    def share(self, name: str) -> tuple[int, float]:
        """Number of levels of all cells that tell about a transform, and the share of whole multiples."""
        found = [fits[name] for fits in self.fits if name in fits]
        levels, hits = sum(fit.levels for fit in found), sum(fit.hits for fit in found)
        return levels, hits / max(1, levels) if 2 * len(found) > len(self.fits) else 0.0

    def transform(self) -> str | None:
        """The one transform under which the values are multiples of one count, or None if there is none."""
        fitting = []
        for name in INVERSES:
            levels, share = self.share(name)
            if levels >= _FEW_LEVELS and share >= _FIT:
                fitting.append(name)
        if "linear" in fitting and "sqrt" in fitting:
            fitting.remove("sqrt")  # squares of whole numbers are whole, but not the other way round
        return fitting[0] if len(fitting) == 1 else None

    def disagreeing(self, name: str) -> int | None:
        """A cell that certainly fits another transform but not ``name``, or None."""
        for row, fits in zip(self.rows.tolist(), self.fits, strict=True):
            mine = fits.get(name)
            certain = [
                other
                for other, fit in fits.items()
                if other != name and fit.levels >= 2 * _FEW_LEVELS and fit.hits >= _FIT * fit.levels
            ]
            if certain and (mine is None or mine.hits < 0.6 * mine.levels):
                return row
        return None

    def of_transform(self, name: str) -> list[Fit]:
        """The fits of one transform, cell by cell."""
        return [fits[name] for fits in self.fits if name in fits]


def unit_of(matrix: CellMatrix, row: int, name: str, *, as_written: bool = False) -> float:
    """What one count of a cell became, under a known transform; NaN if its values do not show it."""
    values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
    found = fits_of(values[values > 0], as_written=as_written).get(name)
    return found.unit if found is not None and found.hits >= 0.9 * found.levels else float("nan")


def decimals_of(values: NDArray[np.float32]) -> int | None:
    """With how many decimals, up to four, the values were written; None if with more."""
    levels = np.unique(values[values > 0][:20_000]).astype(np.float64)
    for decimals in (1, 2, 3, 4):
        scaled = levels * 10**decimals
        if len(levels) >= _FEW_LEVELS and bool((np.abs(scaled - np.rint(scaled)) <= scaled * 2 * _FLOAT32).all()):
            return decimals
    return None
