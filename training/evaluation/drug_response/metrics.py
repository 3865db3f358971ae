"""Metrics of predicted ln IC50, one function each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from scpalm.training.metrics.rows import Row

Floats = NDArray[np.floating]
MIN_GROUP = 3  # rows; two points always correlate perfectly


def pcc(predicted: Floats, measured: Floats) -> float:
    """Pearson correlation ``[R], [R]``; NaN if one side is constant."""
    a = predicted.astype(np.float64) - np.mean(predicted, dtype=np.float64)
    b = measured.astype(np.float64) - np.mean(measured, dtype=np.float64)
    # A mean of equal numbers may differ from them in the last bit.
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return float("nan")
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman(predicted: Floats, measured: Floats) -> float:
    """Pearson correlation of ranks, ties at their mean rank."""
    return pcc(rankdata(predicted), rankdata(measured))


def rmse(predicted: Floats, measured: Floats) -> float:
    """Root mean squared error, ln uM."""
    return float(np.sqrt(np.mean((predicted.astype(np.float64) - measured) ** 2)))


def residual_pcc(predicted: Floats, measured: Floats, drug_mean: Floats) -> float:
    """PCC after ``drug_mean [R]``, the training mean of each row's drug, is taken from both sides.

    It measures knowledge of the cell: a prediction with one value per drug scores about 0.
    """
    return pcc(predicted - drug_mean, measured - drug_mean)


def pcc_by_group(predicted: Floats, measured: Floats, group: NDArray[np.generic]) -> dict[str, float]:
    """PCC within each group of at least ``MIN_GROUP`` rows; NaN where one side is constant there."""
    out = {}
    for name in np.unique(group):
        rows = group == name
        if rows.sum() >= MIN_GROUP:
            out[str(name)] = pcc(predicted[rows], measured[rows])
    return out


def mean_of_groups(by_group: dict[str, float]) -> float:
    """Mean over the groups whose PCC is defined; NaN when none is."""
    values = [value for value in by_group.values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def scores(
    predicted: Floats,
    measured: Floats,
    drug_mean: Floats,
    *,
    drug: NDArray[np.generic],
    line: NDArray[np.generic],
    cancer_type: NDArray[np.generic],
) -> Row:
    """All metrics, rounded to five digits; undefined ones are left out."""
    values = {
        "pcc": pcc(predicted, measured),
        "spearman": spearman(predicted, measured),
        "rmse": rmse(predicted, measured),
        "residual_pcc": residual_pcc(predicted, measured, drug_mean),
        "drug_pcc": mean_of_groups(pcc_by_group(predicted, measured, drug)),
        "line_pcc": mean_of_groups(pcc_by_group(predicted, measured, line)),
        "type_pcc": mean_of_groups(pcc_by_group(predicted, measured, cancer_type)),
    }
    return {name: round(value, 5) for name, value in values.items() if not np.isnan(value)}


def wins(ours: dict[str, float], theirs: dict[str, float]) -> tuple[int, int]:
    """Groups where ours is higher, and groups where both are defined."""
    both = [name for name in ours if name in theirs and not np.isnan(ours[name]) and not np.isnan(theirs[name])]
    return sum(ours[name] > theirs[name] for name in both), len(both)


def coverage(lower: Floats, upper: Floats, measured: Floats) -> float:
    """Share of measured values inside their interval."""
    return float(np.mean((lower <= measured) & (measured <= upper)))
