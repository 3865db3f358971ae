"""Convert the mean of a gene to its expected value in a cell that is known to express it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.values.linear import SCALE

_SMALL = 1e-4


def given_detected(values: NDArray[np.floating], totals: NDArray[np.floating]) -> NDArray[np.float64]:
    """The expected value of a nonzero entry, from its mean over zero and nonzero entries.

    A method's mean ``o`` predicts ``mu = T / 1e4 * (exp(o) - 1)`` counts for a cell of ``T`` counts. Under a Poisson
    law, the mean of the nonzero ones is ``mu / (1 - exp(-mu))``, at least one count. Nothing is fitted. For read counts
    ``mu`` is large and the value hardly changes.

    Args:
        values: log1p CP10K, >= 0. totals: counts of each cell, of a shape that broadcasts.

    Returns:
        log1p CP10K of ``mu / (1 - exp(-mu))`` counts.
    """
    mu = np.expm1(np.maximum(np.asarray(values, dtype=np.float64), 0.0)) * totals / SCALE
    shown = np.where(mu < _SMALL, 1.0 + mu / 2, mu / -np.expm1(-np.maximum(mu, _SMALL)))
    return np.asarray(np.log1p(SCALE * shown / totals), dtype=np.float64)
