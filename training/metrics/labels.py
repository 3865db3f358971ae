"""Labels of cells as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.errors import InputError

UNLABELLED = frozenset({"", "nan", "none", "na", "unassigned"})
MIN_CELLS_OF_A_LABEL = 5


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels as codes.

    Attributes:
        codes: ``[cells]`` int64, position in ``names``; -1 for unlabelled cells.
        names: the labels, sorted.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """``[cells]`` whether a cell has a label."""
        return self.codes >= 0


def encode_labels(values: Sequence[object] | NDArray[np.generic] | pd.Series, *, field: str = "labels") -> Labels:
    """Turn labels of cells into codes.

    NaN, None, the empty string, and 'nan', 'none', 'na' and 'unassigned' in any case mean that a cell is unlabelled.
    Such cells stay in the array and in its graph but are left out of every score.

    Raises:
        InputError: no cell is labelled, all have the same label, or no label has enough cells for 5 folds.
    """
    series = pd.Series(values).reset_index(drop=True).astype(object)
    text = series.where(series.notna(), "").map(lambda value: str(value).strip())
    known = ~text.str.lower().isin(UNLABELLED).to_numpy(dtype=bool)
    names, codes_of_known = np.unique(text.to_numpy(dtype=object)[known].astype(str), return_inverse=True)
    if len(names) == 0:
        raise InputError(
            "no-labels",
            f"No cell has a label in '{field}' ({len(series)} cells, all empty, NaN or 'unassigned').",
            hint="Name a column that holds labels with --label.",
            field=field,
        )
    if len(names) == 1:
        raise InputError(
            "single-label",
            f"All labelled cells have the same label in '{field}': '{names[0]}'.",
            hint="Name a column with two or more labels with --label.",
            field=field,
        )
    largest = int(np.bincount(codes_of_known).max())
    if largest < MIN_CELLS_OF_A_LABEL:
        raise InputError(
            "labels-too-fine",
            f"'{field}' has {len(names)} labels, and the most frequent has {largest} cells.",
            hint=f"Name a column in which at least one label has {MIN_CELLS_OF_A_LABEL} cells with --label.",
            field=field,
        )
    codes = np.full(len(series), -1, dtype=np.int64)
    codes[known] = codes_of_known
    return Labels(codes, tuple(str(name) for name in names))
