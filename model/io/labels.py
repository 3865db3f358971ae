"""Columns of text in ``obs``, such as labels, as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UNLABELLED = frozenset({"", "nan", "none", "na", "unassigned"})


@dataclass(frozen=True, eq=False)
class Categories:
    """A column of text as codes.

    Attributes:
        names: the distinct values, sorted.
        codes: ``[B]`` int32, position in ``names``; -1 for missing values: '', NaN, None, NA and 'unassigned'.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[object] | NDArray[np.generic]) -> Categories:
        """Encode the values of a column."""
        text = np.array(["" if value is None else str(value).strip() for value in values], dtype=object)
        known = np.array([value.lower() not in _UNLABELLED for value in text], dtype=bool)
        names, codes_of_known = np.unique(text[known].astype(str), return_inverse=True)
        codes = np.full(len(text), -1, dtype=np.int32)
        codes[known] = codes_of_known
        return cls(tuple(str(name) for name in names), codes)


@dataclass(frozen=True)
class LabelledBy:
    """How to read a file of labelled cells.

    Attributes:
        label: column of ``obs`` with the labels.
        layer: matrix to read; None for the one that holds the counts.
    """

    label: str = "cell_type"
    layer: str | None = None
