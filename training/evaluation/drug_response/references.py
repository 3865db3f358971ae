"""References for a model: predictions from the training rows alone, and the published predictions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scpalm.training.drug_response.data.splits import Split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.evaluation.drug_response.metrics import rmse

Floats = NDArray[np.float64]
RIDGE_ALPHAS = (0.03, 0.1, 0.3, 1.0, 3.0)
LINE_SHRINKAGE = (0.0, 1.0, 3.0, 10.0)


def drug_means(tables: Tables, rows: NDArray[np.int64]) -> Floats:
    """``[D]`` mean ln IC50 of each drug over ``rows``; for a drug without rows, the mean of all rows."""
    total = np.bincount(tables.drug_of[rows], tables.ln_ic50[rows], len(tables.drugs))
    number = np.bincount(tables.drug_of[rows], minlength=len(tables.drugs))
    return np.where(number, total / np.maximum(number, 1), tables.ln_ic50[rows].mean(dtype=np.float64))


def references(tables: Tables, split: Split) -> Iterator[tuple[str, Floats]]:
    """Name and predictions ``[test rows]`` of each reference; published ones only for the published rows."""
    yield "drug_mean", drug_means(tables, split.train)[tables.drug_of[split.test]]
    yield "drug_mean + line_effect", _additive(tables, split)
    if split.name != "drug":  # a ridge for each drug needs rows of the drug
        yield "kernel_ridge (genes)", _kernel_ridge(tables, split)
    if split.name in ("published", "pair-dedup"):
        for name, vector in (
            ("published DeepCDR", tables.published_base),
            ("published scFoundation", tables.published_scfoundation),
        ):
            if np.isfinite(vector[split.test]).all():
                yield name, vector[split.test]


def _additive(tables: Tables, split: Split) -> Floats:
    means = drug_means(tables, split.train)
    left = tables.ln_ic50[split.train] - means[tables.drug_of[split.train]]
    line = tables.line_of[split.train]
    total = np.bincount(line, left, len(tables.lines))
    number = np.bincount(line, minlength=len(tables.lines))

    def predict(rows: NDArray[np.int64], shrinkage: float) -> Floats:
        effect = total / np.maximum(number + shrinkage, 1)
        return means[tables.drug_of[rows]] + effect[tables.line_of[rows]]

    measured = tables.ln_ic50[split.validation]
    best = min(LINE_SHRINKAGE, key=lambda value: rmse(predict(split.validation, value), measured))
    return predict(split.test, best)


def _kernel_ridge(tables: Tables, split: Split) -> Floats:
    """For each drug a kernel ridge of ln IC50 on the z-scored genes (RBF, gamma 1 / genes), alpha by validation."""
    lines = np.unique(tables.line_of[split.train])
    expression = tables.expression.astype(np.float64)
    sd = expression[lines].std(axis=0)
    genes = (expression - expression[lines].mean(axis=0)) / np.where(sd > 1e-6, sd, 1)
    square = (genes**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None] - 2 * genes @ genes.T, 0)
    kernel = np.exp(-distance / genes.shape[1])

    def predict(rows: NDArray[np.int64], alpha: float) -> Floats:
        means = drug_means(tables, split.train)
        out = means[tables.drug_of[rows]].copy()
        for drug in np.unique(tables.drug_of[rows]):
            train = split.train[tables.drug_of[split.train] == drug]
            if not len(train):
                continue
            seen = tables.line_of[train]
            gram = kernel[np.ix_(seen, seen)] + alpha * np.eye(len(seen))
            weight = np.linalg.solve(gram, tables.ln_ic50[train] - means[drug])
            wanted = tables.drug_of[rows] == drug
            out[wanted] += kernel[np.ix_(tables.line_of[rows[wanted]], seen)] @ weight
        return out

    measured = tables.ln_ic50[split.validation]
    best = min(RIDGE_ALPHAS, key=lambda alpha: rmse(predict(split.validation, alpha), measured))
    return predict(split.test, best)
