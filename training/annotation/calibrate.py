"""Measure how far the answers of a reference can be trusted, on training sets that are left out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from scpalm.model.annotation.calibration import Calibration
from scpalm.model.annotation.reference import Annotation, Reference
from scpalm.training.annotation.cells import CorpusCells, balanced, fit

# Profiles made from the cells of a training set: they are left out together with it.
SAME_STUDY = {
    "bcells_croote2018_smartseq2": ("peripheral blood:Croote_2018|",),
    "decidua_ventotormo2018_947g": ("Decidua_HCA|", "Placenta_HCA|"),
    "liver_aizarani2019_mcelseq2": ("liver:Aizarani_2019|",),
    "pancreas_enge2017_smartseq2": ("pancreas:Enge_2017|", "Pancreas_HCA|"),
}
# The threshold keeps this share of the cells whose type the reference has.
KEPT = 0.95


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers for the cells of one training set, by a reference without that set.

    Attributes:
        source: the set.
        share: ``[B]`` share of the score of the nearest label.
        distance: ``[B]`` to the nearest reference cell.
        known: ``[B]`` whether the reference has the cell's type.
        right: ``[B]`` whether the nearest label is the cell's type.
    """

    source: str
    share: NDArray[np.float64]
    distance: NDArray[np.float64]
    known: NDArray[np.bool_]
    right: NDArray[np.bool_]


def answers_without_own_set(
    cells: CorpusCells,
    array: NDArray[np.floating],
    max_cells: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[HeldOut]:
    """Annotate the cells of each training set with the cells of all other sets and profiles.

    Cells whose label mixes types are left out; cell lines and days of differentiation count as types that no reference
    has.

    Args:
        cells: labelled cells of the corpus.
        array: ``[R, D]`` their embedding.
        max_cells: cells to measure distances to.
        progress: called with the name of each set.
    """
    broad = cells.broad
    foreign = np.array([cell_type.name.startswith(("cell line", "day ")) for cell_type in cells.cell_types], bool)
    found = []
    for source in sorted(set(cells.sources[~cells.simulated])):
        progress(source)
        own = cells.sources == source
        same_study = np.array([t.label.startswith(SAME_STUDY.get(source, ("\0",))) for t in cells.cell_types], bool)
        rest = ~own & ~same_study & (broad != "")
        asked = np.flatnonzero(own & ((broad != "") | foreign))
        if not len(asked) or len(set(broad[rest])) < 2:
            continue
        # Shares unchanged, so that the curve can be fitted to them.
        positions = np.flatnonzero(rest)
        others = cells.select(positions)
        names, discriminant, _ = fit(others, array[positions])
        kept = positions[balanced(others, max_cells)]
        reference = Reference(names, array[kept], discriminant, Calibration(1.0, 0.0, np.inf))
        answer: Annotation = reference.annotate(array[asked])
        known = np.isin(broad[asked], reference.names)
        right = known & (answer.nearest_label == broad[asked])
        found.append(HeldOut(source, answer.probability, answer.distance, known, right))
    return found


def calibrate(held_out: list[HeldOut]) -> tuple[Calibration, dict[str, Any]]:
    """The calibration, and how it was measured (JSON). Every set has the same weight.

    Raises:
        ValueError: no set has a type that another set has, too.
    """
    sets = [one for one in held_out if one.known.any()]
    if not sets:
        raise ValueError("No two data sets of the corpus share a type, so there is nothing to calibrate on.")
    share = np.concatenate([one.share[one.known] for one in sets])
    right = np.concatenate([one.right[one.known] for one in sets])
    weight = np.concatenate([np.full(one.known.sum(), 1 / one.known.sum()) for one in sets])
    slope, intercept = _logistic(share, right, weight)
    distance = np.concatenate([one.distance[one.known] for one in sets])
    threshold = _quantile(distance, weight, KEPT)
    curve = Calibration(slope, intercept, threshold)
    probability = curve.probability(share)
    others = np.concatenate([one.distance[~one.known] for one in held_out])
    provenance = {
        "sets": {
            one.source: {
                "cells": int(one.known.sum()),
                "accuracy": round(float(one.right[one.known].mean()), 4),
                "unknown_share": round(float((one.distance[one.known] > threshold).mean()), 4),
            }
            for one in sets
        },
        "accuracy": round(float(np.average(right, weights=weight)), 4),
        "mean_probability": round(float(np.average(probability, weights=weight)), 4),
        "calibration_error": round(_calibration_error(probability, right, weight), 4),
        "unknown_share": round(float(np.average(distance > threshold, weights=weight)), 4),
        "unknown_share_of_other_types": round(float((others > threshold).mean()), 4) if len(others) else None,
        "cells_of_other_types": len(others),
    }
    return curve, provenance


def _logistic(share: NDArray[np.float64], right: NDArray[np.bool_], weight: NDArray[np.float64]) -> tuple[float, float]:
    if right.all() or not right.any():
        return 1.0, 0.0
    clipped = np.clip(share, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))[:, None]
    model = LogisticRegression(C=1e6, max_iter=1000).fit(logit, right, sample_weight=weight * len(weight))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _quantile(values: NDArray[np.float64], weight: NDArray[np.float64], share: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(cumulative, share)), len(values) - 1)])


def _calibration_error(
    probability: NDArray[np.float64], right: NDArray[np.bool_], weight: NDArray[np.float64], bins: int = 10
) -> float:
    """Mean difference between probability and accuracy over ten bins of probability."""
    number = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for at in range(bins):
        inside = number == at
        if inside.any():
            gap = np.average(probability[inside], weights=weight[inside]) - np.average(
                right[inside], weights=weight[inside]
            )
            error += abs(float(gap)) * float(weight[inside].sum())
    return error / float(weight.sum())
