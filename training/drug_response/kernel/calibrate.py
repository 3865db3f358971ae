"""Predict every training line without it, and set the widths of intervals in each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.kernel.head import Widths
from scpalm.model.drug_response.kernel.profile import SPARSE
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.kernel.fit import Fitted, Responses, fit
from scpalm.training.drug_response.kernel.new_drugs import fingerprint_kernel, invert, predict_new
from scpalm.training.drug_response.kernel.platforms import PLATFORMS, simulate

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
LEVEL = 0.9
NUM_FOLDS = 10
PAIR_SHARE = 0.05
SCALE_WEIGHT = 20.0  # lines' worth of the mean over drugs that each drug's scale is shrunk with
MIN_VALUES = 500  # of a noise level; below, the width is that of the level before
_SEED = 20_260


def line_folds(tables: Tables, lines: Rows, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Training and held-out lines of each of ten folds."""
    fold = np.random.default_rng([_SEED, seed]).permutation(len(tables.lines)) % NUM_FOLDS
    for number in range(NUM_FOLDS):
        yield lines[fold[lines] != number], lines[fold[lines] == number]


@dataclass(frozen=True, eq=False)
class LineFold:
    """One fold: ``fitted`` on all lines but ``held``; ``deviations [held, D]`` are its predictions for those."""

    fitted: Fitted
    held: Rows
    deviations: Floats


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Results of the folds.

    Attributes:
        held_out: ``[T, D]`` deviation of each training line from the drug's mean, predicted without the line.
        scale: ``[D]`` residual sd of each drug on held-out lines.
        widths: of intervals.
    """

    held_out: Floats
    scale: Floats
    widths: Widths


def fold_lines(tables: Tables, responses: Responses, lines: Rows, seed: int = 0) -> Iterator[LineFold]:
    """Fit without each tenth of ``lines``, and predict it."""
    for kept, held in line_folds(tables, lines, seed):
        fitted = fit(tables, responses, kept)
        yield LineFold(fitted, held, fitted.deviations(tables.expression[held]))


@dataclass(eq=False)
class _Errors:
    """Scaled errors of held-out lines, by noise level."""

    by_noise: list[list[NDArray[np.floating]]] = field(default_factory=lambda: [[] for _ in range(SPARSE + 1)])

    def add(self, noise: Rows, errors: NDArray[np.floating]) -> None:
        """``noise [C]``, ``errors [C, D]``, NaN where nothing was measured."""
        for level in np.unique(noise):
            values = errors[noise == level]
            self.by_noise[level].append(values[np.isfinite(values)])

    def widths(self) -> tuple[float, ...]:
        """The quantile of each level; of the level before if there are too few errors."""
        out: list[float] = []
        for parts in self.by_noise:
            values = np.concatenate(parts) if parts else np.empty(0, np.float32)
            out.append(conformal(values) if len(values) >= MIN_VALUES or not out else out[-1])
        return tuple(out)


def calibrate(tables: Tables, rows: Rows, lines: Rows, progress: Callable[[str], object] = print) -> Calibrated:
    """Cross-validate over lines, pairs and drugs of the training ``rows``."""
    responses = Responses.of(tables, rows)
    folds = []
    for fold in fold_lines(tables, responses, lines):
        folds.append(fold)
        progress(f"fold {len(folds)} of {NUM_FOLDS}")
    held_out = np.zeros((len(tables.lines), len(tables.drugs)), np.float32)
    errors = np.full_like(held_out, np.nan)
    for fold in folds:
        held_out[fold.held] = fold.deviations
        errors[fold.held] = _errors(responses, fold, fold.deviations)
    scale = _scale(errors[lines])
    collected = _Errors()
    random = np.random.default_rng(_SEED)
    for fold in folds:
        profiles = tables.expression[fold.held]
        collected.add(fold.fitted.profiles.map(profiles).noise, np.abs(errors[fold.held]) / scale)
        for platform in PLATFORMS:
            measured = simulate(profiles, platform, random)
            found = fold.fitted.deviations(measured)
            noise = fold.fitted.profiles.map(measured).noise
            collected.add(noise, np.abs(_errors(responses, fold, found)) / scale)
    new_line = collected.widths()
    widths = Widths(
        _known_line_width(tables, rows, lines, scale),
        new_line,
        _new_drug_width(tables, responses, lines),
        _contrast(errors[lines] / scale / new_line[0], random),
    )
    return Calibrated(held_out[lines], scale, widths)


def conformal(errors: NDArray[np.floating], level: float = LEVEL) -> float:
    """The ``ceil((n + 1) level)``-th smallest error (Lei et al. 2018). Raises ValueError for too few errors."""
    rank = int(np.ceil((len(errors) + 1) * level))
    if rank > len(errors):
        raise ValueError(f"{len(errors)} errors are too few for intervals of level {level}.")
    return float(np.partition(errors, rank - 1)[rank - 1])


def _errors(responses: Responses, fold: LineFold, deviations: Floats) -> Floats:
    """``[held, D]`` predicted minus measured, NaN where nothing was measured."""
    measured = responses.measured[fold.held]
    return np.where(measured, deviations + fold.fitted.drug_mean - responses.mean[fold.held], np.nan).astype(np.float32)


def _scale(errors: Floats) -> Floats:
    """``[D]`` root mean squared error of each drug, shrunk to the mean of all drugs."""
    number = np.isfinite(errors).sum(axis=0)
    total = np.nansum(np.square(errors), axis=0)
    overall = total.sum() / number.sum()
    return np.sqrt((total + SCALE_WEIGHT * overall) / (number + SCALE_WEIGHT)).astype(np.float32)


def _known_line_width(tables: Tables, rows: Rows, lines: Rows, scale: Floats) -> float:
    """From pairs that a fit has not seen, of lines that it knows."""
    pairs = np.unique(tables.pair_of[rows])
    chosen = np.random.default_rng(_SEED).permutation(pairs)[: max(1, round(PAIR_SHARE * len(pairs)))]
    out = rows[np.isin(tables.pair_of[rows], chosen)]
    out = out[np.isin(tables.line_of[out], lines)]
    fitted = fit(tables, Responses.of(tables, np.setdiff1d(rows, out)), lines)
    found = fitted.drug_mean + fitted.deviations(tables.expression)
    line, drug = tables.line_of[out], tables.drug_of[out]
    return conformal(np.abs(found[line, drug] - tables.ln_ic50[out]) / scale[drug])


def _contrast(errors: Floats, random: np.random.Generator) -> float:
    """Factor by which the error of a difference between two lines exceeds the width of their intervals.

    ``errors [T, D]`` are in units of that width.
    """
    order = random.permutation(len(errors))
    half = len(order) // 2
    difference = np.abs(errors[order[:half]] - errors[order[half : 2 * half]])
    return conformal(difference[np.isfinite(difference)])


def _new_drug_width(tables: Tables, responses: Responses, lines: Rows) -> float:
    """From folds over drugs: the error of drugs predicted from their structure alone, on known lines."""
    found = predict_new_drugs(tables, responses, lines)
    measured = responses.measured[lines] & np.isfinite(found)
    return conformal(np.abs(found - responses.mean[lines])[measured])


def predict_new_drugs(tables: Tables, responses: Responses, lines: Rows) -> Floats:
    """``[lines, D]`` ln IC50 of each drug, predicted without its responses; NaN for drugs without a structure."""
    usable = np.flatnonzero([drug.doubt is None for drug in tables.drugs])
    similarity = fingerprint_kernel([tables.drugs[drug] for drug in usable])
    fold = np.random.default_rng(_SEED).permutation(len(usable)) % NUM_FOLDS
    fitted = fit(tables, responses, lines)
    deviations = fitted.deviations(tables.expression[lines])
    out = np.full((len(lines), len(tables.drugs)), np.nan, np.float32)
    for number in range(NUM_FOLDS):
        kept, held = fold != number, fold == number
        inverse = invert(similarity[np.ix_(kept, kept)])
        weights = similarity[np.ix_(held, kept)] @ inverse
        out[:, usable[held]] = predict_new(fitted.drug_mean[usable[kept]], deviations[:, usable[kept]], weights)
    return out
