"""Simulated measurements of bulk profiles on single-cell platforms, to set intervals by the noise of a profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Platform:
    """A kind of measurement.

    Attributes:
        factor_sd: sd of the natural logarithm of each gene's factor, shared by all profiles of the platform.
        depth: expected number of counts of a profile, over all genes.
        share: of the panel's genes that it measures.
    """

    factor_sd: float
    depth: float
    share: float


# Summed cells, from clean to poor, and single cells.
PLATFORMS = (
    Platform(0.4, 5e6, 1.0),
    Platform(0.7, 2e6, 1.0),
    Platform(1.0, 2e6, 0.9),
    Platform(1.0, 3e5, 0.9),
    Platform(1.0, 2e6, 0.2),
    Platform(1.3, 1e6, 0.9),
    Platform(1.6, 1e6, 0.9),
    Platform(1.0, 3e4, 0.9),
    Platform(1.0, 5e3, 0.9),
)


def simulate(expression: Floats, platform: Platform, random: np.random.Generator) -> Floats:
    """Profiles ``[C, P]`` log2(TPM + 1) as the platform would measure ``expression``, NaN where it does not."""
    num_genes = expression.shape[1]
    factor = np.exp(random.normal(0, platform.factor_sd, num_genes))
    tpm = np.maximum(np.exp2(expression.astype(np.float64)) - 1, 0) * factor
    counts = random.poisson(tpm / 1e6 * platform.depth)
    out = np.log2(counts / platform.depth * 1e6 + 1).astype(np.float32)
    measured = random.permutation(num_genes)[: max(1, round(platform.share * num_genes))]
    missing = np.ones(num_genes, dtype=bool)
    missing[measured] = False
    out[:, missing] = np.nan
    return out
