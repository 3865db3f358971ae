"""Convert and check lists in JSON bodies. Errors name the first invalid element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError

MAX_NAME = 1_000  # characters in the name of a gene or cell
EXAMPLE = '{"genes": ["CD3D", "NKG7"], "indptr": [0, 1, 3], "indices": [0, 0, 1], "data": [4, 1, 7]}'


def indices_of(values: NDArray[np.generic]) -> NDArray[np.int32]:
    """Column indices as int32. Values out of range are clipped, not wrapped, so that they stay invalid."""
    if values.dtype == np.int32:
        return values.astype(np.int32, copy=False)
    return np.clip(values, -1, np.iinfo(np.int32).max).astype(np.int32)


def list_of(members: Mapping[str, object], field: str) -> list[object]:
    """A member that must be a list. Raises InputError."""
    if field not in members:
        raise InputError(
            "missing-field", f"'{field}' is missing.", hint=f"Send an object such as {EXAMPLE}.", field=field
        )
    value = members[field]
    if not isinstance(value, list):
        raise InputError(
            "wrong-type",
            f"'{field}' is {_kind(value)} instead of a list.",
            hint=f"Send an object such as {EXAMPLE}.",
            field=field,
        )
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _refuse_types(values: list[object], field: str, allowed: set[type], what: str) -> None:
    """Raise InputError for the first value whose type is not allowed."""
    if set(map(type, values)) <= allowed:  # fast: the loop runs in C
        return
    position = next(position for position, value in enumerate(values) if type(value) not in allowed)
    raise InputError(
        "wrong-type",
        f"'{field}' has {_kind(values[position])} at position {position}, but must contain only {what}.",
        hint=f"Send {what} in '{field}'.",
        field=field,
    )


def integers_of(members: Mapping[str, object], field: str) -> NDArray[np.int64]:
    """A member that must be a list of integers. Raises InputError."""
    values = list_of(members, field)
    _refuse_types(values, field, {int}, "whole numbers")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InputError(
            "index-out-of-range", f"'{field}' has a number above 2^63.", hint="Check the array.", field=field
        ) from error


def numbers_of(members: Mapping[str, object], field: str) -> NDArray[np.float32]:
    """A member that must be a list of numbers; null becomes NaN. Raises InputError."""
    values = list_of(members, field)
    # NaN becomes null in JSON. Convert it back, so that validation can name the cell and the gene.
    _refuse_types(values, field, {int, float, type(None)}, "numbers")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(np.float32)
    except OverflowError as error:
        raise InputError(
            "not-finite", f"'{field}' has a number too large for a float.", hint="Check the array.", field=field
        ) from error


def names_of(members: Mapping[str, object], field: str) -> list[str]:
    """A member that must be a list of cell or gene names. Raises InputError."""
    values = list_of(members, field)
    _refuse_types(values, field, {str}, "strings")
    names = cast("list[str]", values)
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME or "\0" in "".join(names):
        raise InputError(
            "bad-name",
            f"'{field}' has a name of {longest} characters, or one with a NUL character.",
            hint=f"Use names of at most {MAX_NAME} printable characters.",
            field=field,
        )
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "bad-name",
            f"'{field}' has a name that is not valid Unicode: it contains half of a surrogate pair.",
            hint="Encode the names as UTF-8.",
            field=field,
        ) from error
    return names
