"""Fit library sizes and dispersion of simulated cells to the real cells of a corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.values.linear import SCALE
from scpalm.training.corpus.simulated.simulate import Noise
from scpalm.training.corpus.thinning import Cell

# Larger totals are counts of reads, not of molecules: their noise is that of the amplification.
MOST_COUNTS = 50_000
FEWEST_CELLS = 20
MOST_CELLS = 200
# Below one count per cell, Poisson noise hides the dispersion.
LOWEST_MEAN = 1.0
FEWEST_GENES = 20
# Library sizes run between these quantiles of the real ones, within these bounds.
QUANTILES = (0.05, 0.95)
DEPTH_BOUNDS = (1000.0, 20000.0)


@dataclass(frozen=True)
class RealCells:
    """Real cells of a corpus.

    Attributes:
        obs: a row per cell. cell: reads one of them by its row.
        measured: ``[files, G]`` bool. is_counts: ``[files]`` bool.
    """

    obs: pd.DataFrame
    cell: Callable[[int], Cell]
    measured: NDArray[np.bool_]
    is_counts: NDArray[np.bool_]


def fit_noise(cells: RealCells) -> Noise:
    """Library sizes and dispersion of the labelled cells of files with UMI counts; defaults if there are none.

    The dispersion is the median over groups (a cell type of a file) of the median over well-expressed genes of the
    moment estimate ``(E[(x - t p)^2] - E[x]) / E[(t p)^2]``, for a cell with counts ``x`` of ``t``. Each file has the
    same weight in the quantiles of library sizes. Up to 200 cells of a group are read, and one group at a time is in
    memory.
    """
    obs = cells.obs
    usable = obs[cells.is_counts[obs["file"].to_numpy()] & obs["cell_type"].astype(str).ne("").to_numpy()]
    median = usable.groupby("file")["total"].transform("median")
    usable = usable[median <= MOST_COUNTS]
    found = []
    for _, group in usable.groupby(["file", "cell_type"], sort=True):
        if len(group) >= FEWEST_CELLS:
            rows = group.index.to_numpy()
            rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_CELLS)).astype(int)]
            found.append(_dispersion(cells, rows))
    found = [value for value in found if np.isfinite(value)]
    if not found:
        return Noise()
    low, high = (float(np.clip(usable.groupby("file")["total"].quantile(q).median(), *DEPTH_BOUNDS)) for q in QUANTILES)
    # Rounded, so that the order of sums cannot change a simulated cell.
    return Noise((round(low), round(max(high, low))), round(max(float(np.median(found)), 0.0), 4), len(found))


def _dispersion(cells: RealCells, rows: NDArray[np.int64]) -> float:
    """Median over genes; NaN if too few genes are expressed well enough."""
    num_genes = cells.measured.shape[1]
    total = cells.obs["total"].to_numpy(np.float64)[rows]
    x1, x2, tx = np.zeros(num_genes), np.zeros(num_genes), np.zeros(num_genes)
    for row, t in zip(rows, total, strict=True):
        genes, values = cells.cell(int(row))
        counts = np.rint(np.expm1(values.astype(np.float64)) * t / SCALE)
        x1[genes] += counts
        x2[genes] += counts**2
        tx[genes] += counts * t
    chosen = np.flatnonzero(x1 / len(rows) >= LOWEST_MEAN)
    if len(chosen) < FEWEST_GENES:
        return float("nan")
    x1, x2, tx = x1[chosen], x2[chosen], tx[chosen]
    p = x1 / total.sum()
    expected = p**2 * (total**2).sum()
    spread = (x2 - 2 * p * tx + expected) * len(rows) / (len(rows) - 1)
    return float(np.median((spread - x1) / expected))
