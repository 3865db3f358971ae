"""What matrices and tables in memory, or in a zarr store, say about the values of cells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.io.choose import SAMPLE_VALUES

_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d*)?")


def sample_of(matrix: Any) -> NDArray[np.generic] | None:
    """Some stored values of a sparse or dense matrix, or None if there is no matrix of numbers."""
    if matrix is None:
        return None
    if hasattr(matrix, "indptr") or (hasattr(matrix, "keys") and "data" in matrix):
        stored = matrix.data if hasattr(matrix, "indptr") else matrix["data"]
        values = np.asarray(stored[:SAMPLE_VALUES])
    elif len(getattr(matrix, "shape", ())) == 2:
        values = np.asarray(matrix[: max(1, SAMPLE_VALUES // max(1, matrix.shape[1]))]).ravel()
    else:
        return None
    return values if values.dtype.kind in "biuf" else None


def log_base(note: object) -> float | None:
    """The base of the logarithm in ``uns["log1p"]``, or None if there is no such note."""
    if not isinstance(note, Mapping):
        return None
    base = note.get("base")
    return float(base) if isinstance(base, int | float | np.number) else math.e


def totals_of(column: pd.Series) -> NDArray[np.float64] | None:
    """A column of ``obs`` as totals, NaN where there is no number; None for booleans and other things.

    Numbers may be text (``12,345`` as well), or the categories of a categorical column.
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(column):
        column = pd.to_numeric(column.astype(object).map(_without_commas), errors="coerce")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return column.to_numpy(dtype=np.float64, na_value=np.nan) if numeric else None


def _without_commas(value: object) -> object:
    return value.replace(",", "") if isinstance(value, str) and _THOUSANDS.fullmatch(value.strip()) else value
