"""From the mean of a gene to its value in a cell that is known to show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.normalize import SCALE

_SMALL = 1e-4


def given_detected(values: NDArray[np.floating], totals: NDArray[np.floating]) -> NDArray[np.float64]:
    """The expected value of an entry that is not zero, from its mean over zeros and ones alike.

    A method's mean ``o`` says how many counts a cell of ``T`` counts should show, ``mu = T / 1e4 * (exp(o) - 1)``. If
    they come by Poisson's law, the mean of those that are not zero is ``mu / (1 - exp(-mu))``, at least one count. No
    number in it is fitted. Where counts are reads of many copies, ``mu`` is large and the value stays as it was.

    Args:
        values: log1p CP10K, >= 0. totals: counts of each cell, of a shape that broadcasts.

    Returns:
        log1p CP10K of ``mu / (1 - exp(-mu))`` counts.
    """
    mu = np.expm1(np.maximum(np.asarray(values, dtype=np.float64), 0.0)) * totals / SCALE
    shown = np.where(mu < _SMALL, 1.0 + mu / 2, mu / -np.expm1(-np.maximum(mu, _SMALL)))
    return np.asarray(np.log1p(SCALE * shown / totals), dtype=np.float64)
