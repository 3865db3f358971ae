"""pandas dataframes, read as gene tables and as tables of numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.errors import InputError


class FrameTable:
    """A dataframe that implements `scpalm.model.genes.matching.names.GeneTable`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def index(self) -> list[str]:
        return [str(name) for name in self._frame.index]

    def columns_named(self) -> list[str]:
        return [str(name) for name in self._frame.columns]

    def flags_of(self, column: str) -> NDArray[np.bool_] | None:
        if column not in self._frame or self._frame[column].dtype != np.bool_:
            return None
        return self._frame[column].to_numpy(dtype=np.bool_)

    def names_of(self, column: str) -> list[str] | None:
        if column not in self._frame or pd.api.types.is_numeric_dtype(self._frame[column]):
            return None
        return [str(value) if pd.notna(value) else "" for value in self._frame[column]]


def numbers_of(name: str, table: object) -> dict[str, object]:
    """Convert a dataframe of numbers in ``obsm`` to ``{"genes": [names], "values": [B, names]}``. Raises InputError."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            "not-a-dataframe",
            f"'obsm/{name}' has no column names.",
            hint=f"Store a pandas DataFrame with one column per gene in obsm['{name}'].",
            field=f"obsm/{name}",
        )
    for column in table:
        if not pd.api.types.is_numeric_dtype(table[column]):
            what = f"obsm/{name}/{str(column)[:200]}"
            raise InputError("not-numbers", f"'{what}' does not hold numbers.", hint="Leave it out.", field=what)
    return {"genes": [str(column) for column in table], "values": table.to_numpy(dtype=np.float32)}
