"""Lists in JSON bodies, checked: the first wrong element is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError

MAX_NAME = 1_000  # characters of a gene's or cell's name
EXAMPLE = '{"genes": ["CD3D", "NKG7"], "indptr": [0, 1, 3], "indices": [0, 0, 1], "data": [4, 1, 7]}'


def indices_of(values: NDArray[np.generic]) -> NDArray[np.int32]:
    """Column indices as int32. Those out of its range are clipped, not wrapped, so that they stay invalid."""
    if values.dtype == np.int32:
        return values.astype(np.int32, copy=False)
    return np.clip(values, -1, np.iinfo(np.int32).max).astype(np.int32)


def list_of(members: Mapping[str, object], field: str) -> list[object]:
    """A member that must be a list. Raises InputError."""
    if field not in members:
        raise InputError(
            "missing-field", f"'{field}' is missing.", mend=f"Send an object such as {EXAMPLE}.", field=field
        )
    value = members[field]
    if not isinstance(value, list):
        raise InputError(
            "wrong-type",
            f"'{field}' is {_kind(value)} instead of a list.",
            mend=f"Send an object such as {EXAMPLE}.",
            field=field,
        )
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _refuse_types(values: list[object], field: str, allowed: set[type], what: str) -> None:
    """Name the first value whose type is not allowed. One pass in C over the types."""
    if set(map(type, values)) <= allowed:
        return
    at = next(position for position, value in enumerate(values) if type(value) not in allowed)
    raise InputError(
        "wrong-type",
        f"'{field}' has {_kind(values[at])} at position {at}; all of it must be {what}.",
        mend=f"Send {what} in '{field}'.",
        field=field,
    )


def integers_of(members: Mapping[str, object], field: str) -> NDArray[np.int64]:
    """A list of whole numbers. Raises InputError."""
    values = list_of(members, field)
    _refuse_types(values, field, {int}, "whole numbers")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InputError(
            "index-out-of-range", f"'{field}' has a number over 2^63.", mend="Check the array.", field=field
        ) from error


def numbers_of(members: Mapping[str, object], field: str) -> NDArray[np.float32]:
    """A list of numbers; null becomes NaN. Raises InputError."""
    values = list_of(members, field)
    # null is what NaN becomes in JSON. As NaN, the check of values can name its cell and gene.
    _refuse_types(values, field, {int, float, type(None)}, "numbers")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(np.float32)
    except OverflowError as error:
        raise InputError(
            "not-finite", f"'{field}' has a number beyond any float.", mend="Check the array.", field=field
        ) from error


def names_of(members: Mapping[str, object], field: str) -> list[str]:
    """A list of names of cells or genes. Raises InputError."""
    values = list_of(members, field)
    _refuse_types(values, field, {str}, "strings")
    names = cast("list[str]", values)
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME or "\0" in "".join(names):
        raise InputError(
            "bad-name",
            f"'{field}' has a name of {longest} characters, or one with a NUL character.",
            mend=f"Keep names under {MAX_NAME} printable characters.",
            field=field,
        )
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "bad-name",
            f"'{field}' has a name that is not Unicode text: half of a surrogate pair.",
            mend="Write the names as UTF-8.",
            field=field,
        ) from error
    return names
