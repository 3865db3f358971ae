"""Judge the kernel head as the field does: new lines, new drugs and both, with references, intervals and biomarkers.

All figures are of rows outside the published test rows. Each line or drug is predicted by a fit that has not seen it,
and its interval is set by the errors of the other folds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.kernel.calibrate import conformal, fold_lines, line_folds
from scpalm.training.drug_response.kernel.export import training_rows
from scpalm.training.drug_response.kernel.fit import Responses
from scpalm.training.drug_response.kernel.new_drugs import fingerprint_kernel, invert, predict_new
from scpalm.training.evaluation.drug_response.methods import drug_means, held_out_references
from scpalm.training.evaluation.drug_response.metrics import pcc, rmse
from scpalm.training.metrics.rows import Row

BIOMARKERS = Path(__file__).with_name("biomarkers.csv")
NUM_FOLDS, LEVEL, MIN_GROUP = 10, 0.9, 10
# A biomarker counts as seen in these data if its effect has the expected sign and at least this many standard errors.
MIN_T = 2.0

Floats = NDArray[np.floating]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Setting:
    """Predictions for pairs that were held out in one way.

    Attributes:
        name: of the data set. measured, base: ``[L, D]`` answers, NaN where there are none; what residuals are to.
        by_method: ``[L, D]`` predictions. fold: ``[L, D]`` fold of each pair, for intervals.
        new_drugs: whether the drugs are new, so that nothing is known of the errors of each.
    """

    name: str
    measured: Floats
    base: Floats
    by_method: dict[str, Floats]
    fold: NDArray[np.int64]
    new_drugs: bool = False

    def rows(self) -> list[Row]:
        """One row a method."""
        out: list[Row] = []
        for name, predicted in self.by_method.items():
            about: Row = {"dataset": f"drug response, {self.name}", "method": name, "seed": 0}
            out.append(about | self._scores(predicted))
        return out

    def _scores(self, predicted: Floats) -> Row:
        known = np.isfinite(self.measured) & np.isfinite(predicted)
        found, answer = predicted[known], self.measured[known]
        base = self.base[known]
        within = [
            pcc(predicted[rows, drug], self.measured[rows, drug])
            for drug in range(known.shape[1])
            if (rows := known[:, drug]).sum() >= MIN_GROUP
        ]
        within = [value for value in within if not np.isnan(value)]
        values = {
            "pcc": pcc(found, answer),
            "rmse": rmse(found, answer),
            "residual_pcc": pcc(found - base, answer - base),
            "drug_pcc": float(np.mean(within)) if within else np.nan,
            "drug_pcc_median": float(np.median(within)) if within else np.nan,
            "coverage": self._coverage(np.abs(predicted - self.measured), known),
        }
        return {name: round(value, 5) for name, value in values.items() if not np.isnan(value)}

    def _coverage(self, error: Floats, known: NDArray[np.bool_]) -> float:
        """Share inside intervals whose width is set by the other folds: of each drug, shrunk to that of all drugs."""
        held = 0
        for fold in np.unique(self.fold):
            own, others = known & (self.fold == fold), known & (self.fold != fold)
            scale = np.where(others, np.square(error), 0).sum(axis=0) + 20 * np.square(error[others]).mean()
            scale = np.ones(len(scale)) if self.new_drugs else np.sqrt(scale / (others.sum(axis=0) + 20))
            width = conformal((error / scale)[others], LEVEL)
            held += int(((error / scale)[own] <= width).sum())
        return held / int(known.sum())


def setting_rows(tables: Tables, progress: Callable[[str], object] = print) -> tuple[list[Row], list[Row]]:
    """Rows of each setting and method, and rows of biomarkers on held-out lines."""
    rows = training_rows(tables)
    responses, lines = Responses.of(tables, rows), np.unique(tables.line_of[rows])
    measured = np.where(responses.measured, responses.mean, np.nan)
    progress("references of new lines")
    by_method = held_out_references(tables, responses, lines)
    line_fold = np.zeros(measured.shape, dtype=np.int64)
    for number, (_, held) in enumerate(line_folds(tables, lines)):
        line_fold[held] = number
    progress("kernel head of new lines")
    for name in ("kernel head", "kernel head, mutations"):
        by_method[name] = np.full(measured.shape, np.nan)
    deviations = np.zeros(measured.shape)
    means = np.zeros(measured.shape)
    for fold in fold_lines(tables, responses, lines):
        held, fitted = fold.held, fold.fitted
        by_method["kernel head"][held] = fitted.drug_mean + fold.deviations
        mutated = fitted.deviations(tables.expression[held], tables.mutation[held])
        by_method["kernel head, mutations"][held] = fitted.drug_mean + mutated
        deviations[held], means[held] = fold.deviations, fitted.drug_mean
    new_lines = Setting("new lines", measured, by_method["drug_mean"], by_method, line_fold)
    progress("new drugs")
    settings = [new_lines, *_new_drugs(tables, responses, means, deviations, line_fold)]
    return [row for setting in settings for row in setting.rows()], biomarker_rows(tables, measured, by_method)


def _new_drugs(
    tables: Tables, responses: Responses, means: Floats, deviations: Floats, line_fold: NDArray[np.int64]
) -> list[Setting]:
    """New drugs on known lines, and on lines that are new as well (``means``, ``deviations`` of held-out lines)."""
    measured = np.where(responses.measured, responses.mean, np.nan)
    usable = np.flatnonzero([drug.doubt is None for drug in tables.drugs])
    similarity = fingerprint_kernel([tables.drugs[drug] for drug in usable])
    fold = np.random.default_rng(0).permutation(len(usable)) % NUM_FOLDS
    lines = np.arange(len(tables.lines))
    mean = drug_means(responses, lines)
    known = np.where(responses.measured, responses.mean - mean, np.nan)
    found: dict[str, dict[str, Floats]] = {
        name: {method: np.full(measured.shape, np.nan) for method in ("mean of all drugs, line effect", "kernel head")}
        for name in ("new drugs", "new lines and drugs")
    }
    drug_fold = np.zeros(measured.shape, dtype=np.int64)
    for number in range(NUM_FOLDS):
        kept, held = usable[fold != number], usable[fold == number]
        drug_fold[:, held] = number
        weights = similarity[np.ix_(fold == number, fold != number)] @ invert(
            similarity[fold != number][:, fold != number]
        )
        # A known line has measured responses to the other drugs; where it has none, the mean of the line stands in.
        effect = np.nan_to_num(np.nanmean(known[:, kept], axis=1))[:, None]
        own = np.where(np.isfinite(known[:, kept]), known[:, kept], effect)
        found["new drugs"]["mean of all drugs, line effect"][:, held] = mean[kept].mean() + effect
        found["new drugs"]["kernel head"][:, held] = predict_new(mean[kept], own, weights)
        both = found["new lines and drugs"]
        for line in np.unique(line_fold):
            rows = np.flatnonzero(line_fold[:, 0] == line)
            base = means[rows[0], kept]
            both["mean of all drugs, line effect"][np.ix_(rows, held)] = base.mean() + deviations[
                np.ix_(rows, kept)
            ].mean(axis=1, keepdims=True)
            both["kernel head"][np.ix_(rows, held)] = predict_new(base, deviations[np.ix_(rows, kept)], weights)
    overall = np.full(measured.shape, np.nanmean(measured))
    return [Setting(name, measured, overall, by_method, drug_fold, new_drugs=True) for name, by_method in found.items()]


def biomarker_rows(tables: Tables, measured: Floats, by_method: dict[str, Floats]) -> list[Row]:
    """For each pair of ``biomarkers.csv``: mean ln IC50 of mutant lines minus that of others, measured and predicted.

    ``kept`` is the predicted share of the measured effect; ``seen`` says whether these data confirm the biomarker.
    """
    drug_of = {drug.name: number for number, drug in enumerate(tables.drugs)}
    gene_of = {gene: number for number, gene in enumerate(tables.mutation_names)}
    out: list[Row] = []
    with BIOMARKERS.open(encoding="utf-8") as file:
        for pair in csv.DictReader(file):
            if pair["gene"] not in gene_of or pair["drug"] not in drug_of:
                continue
            call, drug = tables.mutation[:, gene_of[pair["gene"]]], drug_of[pair["drug"]]
            answer = measured[:, drug]
            mutant, other = ((call == value) & np.isfinite(answer) for value in (1, 0))
            if min(mutant.sum(), other.sum()) < 2:
                continue
            effect = float(answer[mutant].mean() - answer[other].mean())
            error = float(np.sqrt(answer[mutant].var(ddof=1) / mutant.sum() + answer[other].var(ddof=1) / other.sum()))
            sign = 1 if pair["expected"] == "resistant" else -1
            for name, predicted in by_method.items():
                if name == "drug_mean":
                    continue
                found = float(np.nanmean(predicted[mutant, drug]) - np.nanmean(predicted[other, drug]))
                out.append(
                    {
                        "dataset": f"{pair['gene']} - {pair['drug']} ({pair['expected']})",
                        "method": name,
                        "seed": 0,
                        "mutant_lines": int(mutant.sum()),
                        "measured": round(effect, 3),
                        "predicted": round(found, 3),
                        "kept": round(found / effect, 3),
                        "seen": int(sign * effect > MIN_T * error),
                    }
                )
    return out


def biomarker_summary(rows: list[Row], reference: str = "kernel ridge (genes, mutations)") -> list[str]:
    """For each method: mean share kept of the biomarkers seen, and in how many it is above ``reference``."""
    seen = [row for row in rows if row["seen"]]
    shares = {
        method: {row["dataset"]: float(row["kept"]) for row in seen if row["method"] == method}
        for method in dict.fromkeys(str(row["method"]) for row in seen)
    }
    base = shares.get(reference, {})
    return [
        f"{method}: keeps {np.mean(list(kept.values())):.2f} of {len(kept)} effects; above {reference} in "
        f"{sum(kept[pair] > base.get(pair, np.inf) for pair in kept)}"
        for method, kept in shares.items()
    ]
