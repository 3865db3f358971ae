"""Conformal intervals of an ensemble: split conformal, scaled by the disagreement of its members."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """``mean +- quantile * sqrt(variance of the members + spread ** 2)``.

    Attributes:
        spread: ln uM, root mean variance of the members on the calibration rows. It keeps the interval from vanishing
            where members agree by chance.
        quantile: of the calibration rows' scaled errors. level: the intended coverage.
    """

    spread: float
    quantile: float
    level: float = LEVEL

    def around(self, members: Floats) -> tuple[Floats, Floats]:
        """Lower and upper ends ``[R]`` from predictions of the members ``[M, R]``."""
        mean = members.mean(axis=0)
        width = self.quantile * np.sqrt(members.var(axis=0) + self.spread**2)
        return mean - width, mean + width

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def calibrate(members: Floats, measured: Floats, level: float = LEVEL) -> Interval:
    """Calibrate on predictions ``[M, R]`` and answers ``[R]`` of rows that no member was trained or selected on.

    The quantile is the ``ceil((R + 1) level)``-th smallest scaled error, which covers a new pair of the same kind with
    probability at least ``level`` (Lei et al. 2018, Distribution-free predictive inference for regression). Raises
    ValueError when there are too few rows for the level.
    """
    rank = int(np.ceil((len(measured) + 1) * level))
    if rank > len(measured):
        raise ValueError(f"{len(measured)} calibration rows are too few for intervals of level {level}.")
    variance = members.astype(np.float64).var(axis=0)
    # A single member has no variance; any constant will do.
    spread = float(np.sqrt(variance.mean())) or 1.0
    error = np.abs(members.mean(axis=0) - measured) / np.sqrt(variance + spread**2)
    return Interval(spread, float(np.sort(error)[rank - 1]), level)
