"""Values for ``uns``: what JSON can hold, as the nested mappings and arrays that anndata writes to every format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_SINGLE = 40

Plain = dict[str, "Plain"] | NDArray[np.generic] | str | bool | int | float


def plain_mapping(values: Mapping[str, object]) -> dict[str, Plain]:
    """Convert a mapping of JSON values, without its nulls, which older releases of anndata cannot read.

    Lists become arrays, and a list of objects a mapping of columns. A long mapping of texts or numbers becomes a table
    with the columns ``key`` and ``value``: HDF5 needs a kilobyte for each single value. A "/" in a key becomes "|",
    since HDF5 and zarr would take it for a nested group.

    Example:
        >>> plain_mapping({"a/b": None, "rows": [{"x": 1}, {"x": 2}]})
        {'rows': {'x': array([1, 2])}}
    """
    return {str(key).replace("/", "|"): _plain(value) for key, value in values.items() if value is not None}


def _plain(value: object) -> Plain:
    if isinstance(value, Mapping):
        if len(value) > _MOST_SINGLE and not any(isinstance(one, Mapping | list | tuple) for one in value.values()):
            return {"key": _array([str(key) for key in value]), "value": _array(list(value.values()))}
        return plain_mapping(value)
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Sequence | np.ndarray):
        return _plain_list(list(value))
    return str(value)


def _plain_list(values: list[object]) -> Plain:
    if values and all(isinstance(value, Mapping) for value in values):
        rows = [value for value in values if isinstance(value, Mapping)]
        names = dict.fromkeys(str(name) for row in rows for name in row)
        return {name.replace("/", "|"): _array([row.get(name) for row in rows]) for name in names}
    return _array(values)


def _array(values: list[object]) -> NDArray[np.generic]:
    """One array. Missing numbers become NaN; what is neither all numbers nor all text becomes text."""
    if values and all(isinstance(value, bool) for value in values):
        return np.array(values, dtype=bool)
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=np.int64)
    if any(value is not None for value in values) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    ):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    texts = [_text(value) for value in values]
    return np.array(texts, dtype=object)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=list)
