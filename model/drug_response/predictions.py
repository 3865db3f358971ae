"""Predictions of a drug response head, and checks of its optional inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError

Floats = NDArray[np.float32]
Setting = Literal["expression", "mutation", "methylation"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for C cells and D drugs: ln IC50, with IC50 in uM.

    A cell that expresses no gene of the panel has NaN in all its values.

    Attributes:
        ln_ic50: ``[C, D]`` mean of the ensemble.
        lower, upper: ``[C, D]`` interval that contains the measured value with probability ``level``, for pairs like
            the training pairs. For a new drug it is calibrated on drugs that were held out.
        cell_distance: ``[C]`` of networks, the root mean square z-score of the cell's features; of a kernel head, 1
            minus the correlation with the nearest training line.
        cell_outside: ``[C]`` whether that is beyond the training lines.
        drug_similarity: ``[D]`` similarity to the nearest training drug, 0 to 1.
        drug_outside: ``[D]`` whether the drug is outside the training domain.
        setting: the inputs that were used.
        level: probability of the interval.
        relative: what only a kernel head gives; see `Relative`.
    """

    ln_ic50: Floats
    lower: Floats
    upper: Floats
    cell_distance: Floats
    cell_outside: NDArray[np.bool_]
    drug_similarity: Floats
    drug_outside: NDArray[np.bool_]
    setting: Setting
    level: float
    relative: Relative | None = None


@dataclass(frozen=True, eq=False)
class Relative:
    """Predictions relative to the training lines.

    Attributes:
        difference: ``[C, D]`` to the mean of the drug over the training lines, ln uM.
        percentile: ``[C, D]`` share of the training lines that are predicted at least as sensitive, 0 to 100.
        rank: ``[C, D]`` rank of the drug among the requested ones, 1 for the most sensitive compared with the training
            lines: by ``difference`` over the sd of the drug's predictions for these. 0 for cells without an answer.
        nearest: ``[C]`` number of the nearest training line in ``DrugResponseSession.lines``.
        sparse: ``[C]`` whether the profile has too few counts for its genes, as single cells have.
    """

    difference: Floats
    percentile: Floats
    rank: NDArray[np.int32]
    nearest: NDArray[np.int64]
    sparse: NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingLine:
    """A cell line of the training data: DepMap id and TCGA type."""

    id: str
    type: str


def check_optional(field: str, values: NDArray[np.generic], shape: tuple[int, int], bounds: tuple[int, int]) -> None:
    if values.shape != shape:
        raise InputError(
            "bad-shape",
            f"'{field}' has shape {values.shape}, not {shape} (cells, columns).",
            hint="Send one row per cell and one column per name.",
            field=field,
        )
    numbers = values.astype(np.float64)
    wrong = (numbers < bounds[0]) | (numbers > bounds[1]) | np.isinf(numbers)
    if field == "mutation":
        wrong |= numbers != np.rint(numbers)
    if wrong.any():
        row, column = (int(i[0]) for i in np.nonzero(wrong))
        allowed = "0, 1 or -1 (unknown)" if field == "mutation" else "a fraction from 0 to 1, or missing"
        raise InputError(
            "bad-value",
            f"'{field}' is {values[row, column]} in cell number {row + 1}, column {column + 1}; it must be {allowed}.",
            hint="Correct it, or leave it out.",
            field=field,
        )
