"""Predictions for cell lines that were left out of training: references, and the kernel head, by ten folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.kernel.calibrate import line_folds
from scpalm.training.drug_response.kernel.fit import Responses

Floats = NDArray[np.floating]
Rows = NDArray[np.int64]
RIDGE_ALPHAS = (0.1, 0.3, 1.0, 3.0)
ELASTIC_ALPHAS = (0.1, 0.2, 0.4)  # of responses scaled to a sd of 1; half of the penalty is L1
_VALIDATION_SHARE = 0.1
_MIN_LINES = 20


def held_out_references(tables: Tables, responses: Responses, lines: Rows) -> dict[str, Floats]:
    """``[L, D]`` ln IC50 by method, each line predicted without it. The first is the mean of each drug."""
    features = _features(tables)
    names = ("drug_mean", *features, "elastic net (genes)")
    out: dict[str, Floats] = {name: np.zeros(responses.mean.shape) for name in names}
    chosen: dict[str, float] = {}
    for kept, held in line_folds(tables, lines):
        mean = drug_means(responses, kept)
        out["drug_mean"][held] = mean
        for name, values in features.items():
            gram = _kernel(values, kept)
            if name not in chosen:
                chosen[name] = _best_alpha(gram, responses, kept)
            out[name][held] = mean + _ridge(gram, responses, kept, held, chosen[name])
        genes = _standard(tables.expression, kept)
        if "elastic" not in chosen:
            inner, validation = _inner(kept)
            chosen["elastic"] = min(
                ELASTIC_ALPHAS,
                key=lambda alpha: _error(_elastic(genes, responses, inner, validation, alpha), responses, validation),
            )
        out["elastic net (genes)"][held] = mean + _elastic(genes, responses, kept, held, chosen["elastic"])
    return out


def drug_means(responses: Responses, lines: Rows) -> Floats:
    """``[D]`` mean ln IC50 over the measured ``lines``; the mean of all for a drug without."""
    measured = responses.measured[lines]
    number = measured.sum(axis=0)
    total = (responses.mean[lines] * measured).sum(axis=0, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), total.sum() / number.sum())


def _features(tables: Tables) -> dict[str, Sequence[Floats]]:
    """Features of each kernel ridge, as blocks of equal weight for each feature."""
    mutation = np.where(tables.mutation < 0, np.nan, tables.mutation.astype(np.float64))
    found: dict[str, Sequence[Floats]] = {
        "kernel ridge (genes)": [tables.expression],
        "kernel ridge (genes, mutations)": [tables.expression, mutation],
    }
    if tables.scfoundation is not None:
        found["kernel ridge (scFoundation embedding)"] = [tables.scfoundation]
    return found


def _standard(values: Floats, lines: Rows) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    mean, sd = np.nanmean(values[lines], axis=0), np.nanstd(values[lines], axis=0)
    return np.nan_to_num((values - mean) / np.where(sd > 1e-6, sd, 1))


def _kernel(blocks: Sequence[Floats], lines: Rows) -> NDArray[np.float64]:
    """Gaussian kernel ``[L, L]`` with gamma 1 / features."""
    features = np.concatenate([_standard(block, lines) for block in blocks], axis=1)
    square = np.square(features).sum(axis=1)
    distance = np.maximum(square[:, None] + square - 2 * features @ features.T, 0)
    return np.exp(-distance / features.shape[1])


def _each_drug(responses: Responses, lines: Rows) -> Iterator[tuple[int, Rows, NDArray[np.float64]]]:
    """Each drug with its measured lines and their deviations from its mean."""
    for drug, mean in enumerate(drug_means(responses, lines)):
        own = lines[responses.measured[lines, drug]]
        if len(own) >= _MIN_LINES:
            yield drug, own, responses.mean[own, drug] - mean


def _ridge(gram: NDArray[np.float64], responses: Responses, kept: Rows, held: Rows, alpha: float) -> Floats:
    """``[held, D]`` deviations from the drugs' means, one kernel ridge a drug."""
    out = np.zeros((len(held), responses.mean.shape[1]))
    for drug, own, answer in _each_drug(responses, kept):
        factor = cho_factor(gram[np.ix_(own, own)] + alpha * np.eye(len(own)))
        out[:, drug] = gram[np.ix_(held, own)] @ cho_solve(factor, answer)
    return out


def _elastic(genes: NDArray[np.float64], responses: Responses, kept: Rows, held: Rows, alpha: float) -> Floats:
    """The same with one elastic net a drug."""
    from sklearn.linear_model import ElasticNet

    out = np.zeros((len(held), responses.mean.shape[1]))
    for drug, own, answer in _each_drug(responses, kept):
        sd = max(float(answer.std()), 1e-6)
        model = ElasticNet(alpha=alpha, l1_ratio=0.5, precompute=True, tol=1e-2, max_iter=200)
        out[:, drug] = model.fit(genes[own], answer / sd).predict(genes[held]) * sd
    return out


def _inner(lines: Rows) -> tuple[Rows, Rows]:
    order = np.random.default_rng(0).permutation(lines)
    number = max(1, round(_VALIDATION_SHARE * len(lines)))
    return order[number:], order[:number]


def _best_alpha(gram: NDArray[np.float64], responses: Responses, lines: Rows) -> float:
    """By a tenth of the training lines of the first fold."""
    inner, validation = _inner(lines)
    return min(
        RIDGE_ALPHAS,
        key=lambda alpha: _error(_ridge(gram, responses, inner, validation, alpha), responses, validation),
    )


def _error(deviations: Floats, responses: Responses, lines: Rows) -> float:
    measured = responses.measured[lines]
    wanted = responses.mean[lines] - drug_means(responses, lines)
    return float(np.square((deviations - wanted)[measured]).mean())
