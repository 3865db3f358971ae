"""Cells as sparse JSON: ``{"genes", "obs_names"?, "indptr", "indices", "data"}``, compressed sparse rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import orjson
from numpy.typing import NDArray

from scpalm.app.codecs.codec import Answer, DecodeOptions, Part
from scpalm.app.storage.values import IN_MEMORY_BYTES, row_blocks
from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.io.matrix import CellMatrix

MAX_NAME = 1_000  # characters of a gene's or cell's name
_EXAMPLE = '{"genes": ["CD3D", "NKG7"], "indptr": [0, 1, 3], "indices": [0, 0, 1], "data": [4, 1, 7]}'


class SparseJsonCodec:
    """Reads cells, writes answers. Members of the body that it does not know are left to other layers."""

    name = "json"
    media_type = "application/json"
    media_types: tuple[str, ...] = ("application/json",)
    suffix = ".json"
    reads_files = False

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        if options.layer is not None:
            raise InputError(
                "no-such-layer", "Sparse JSON has no layers.", mend="Leave layer out, or send h5ad.", field="layer"
            )
        members = _parse(body.read_bytes() if isinstance(body, Path) else body)
        indptr = _integers(members, "indptr")
        num_cells = max(0, len(indptr) - 1)
        if options.max_cells is not None and num_cells > options.max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The body has {num_cells} cells, the limit is {options.max_cells}.",
                mend="Send it in parts.",
                field="indptr",
            )
        genes = names_of(members, "genes")
        cells = names_of(members, "obs_names") if members.get("obs_names") is not None else None
        indices, data = _integers(members, "indices"), _numbers(members, "data")
        matrix = CellMatrix(
            indptr=indptr,
            # Held at the ends of int32, not wrapped around: an index that is too large must not come to look valid.
            indices=np.clip(indices, -1, np.iinfo(np.int32).max).astype(np.int32),
            data=data,
            genes=genes,
            cells=cells if cells is not None else [str(row) for row in range(num_cells)],
        )
        matrix.validate()
        yield matrix

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """Those members of the body that are named, as they are."""
        members = _parse(body.read_bytes() if isinstance(body, Path) else body)
        return {name: members[name] for name in names if name in members}

    def encode(self, answer: Answer, target: Path, original: Path | None = None) -> bytes | None:
        main, *others = answer.parts
        note = answer.note()
        head = _dumps({"model": note["model"], "obs_names": answer.obs_names, **_columns(main)})
        tail = _dumps({name: what for name, what in note.items() if name != "model"})
        pieces = chain((head[:-1], b","), _values(main))
        for part in others:
            opening = b"," + _dumps(part.name) + b":" + (_dumps(_columns(part))[:-1] + b"," if part.columns else b"{")
            pieces = chain(pieces, (opening,), _values(part), (b"}",))
        pieces = chain(pieces, (b"," + tail[1:],))
        if sum(part.nbytes for part in answer.parts) <= IN_MEMORY_BYTES:
            return b"".join(pieces)
        with target.open("wb") as file:
            file.writelines(pieces)
        return None


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _columns(part: Part) -> dict[str, object]:
    return {} if part.columns is None else {"columns": list(part.columns)}


def _values(part: Part) -> Iterator[bytes]:
    """The members ``shape`` and ``values``; rows block by block."""
    yield b'"shape":' + _dumps(list(part.values.shape)) + b',"values":['
    for number, block in enumerate(row_blocks(part.values)):
        yield (b"," if number else b"") + _dumps(np.ascontiguousarray(block))[1:-1]
    yield b"]"


def _parse(body: bytes) -> dict[str, object]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        members = _parse_with_nan(body, error)
    if not isinstance(members, dict):
        raise InputError(
            "wrong-type", "The body is not a JSON object.", mend=f"Send an object such as {_EXAMPLE}.", field="body"
        )
    return members


def _parse_with_nan(body: bytes, error: orjson.JSONDecodeError) -> object:
    # Python's json writes NaN and Infinity, which JSON does not have. Read them, so that the cell can be named.
    if any(word in body for word in (b"NaN", b"Infinity")):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise UnreadableError(
        "not-json",
        f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
        mend=f"Send an object such as {_EXAMPLE}.",
        field="body",
    ) from error


def _list(members: dict[str, object], field: str) -> list[object]:
    if field not in members:
        raise InputError(
            "missing-field", f"'{field}' is missing.", mend=f"Send an object such as {_EXAMPLE}.", field=field
        )
    value = members[field]
    if not isinstance(value, list):
        raise InputError(
            "wrong-type",
            f"'{field}' is {_kind(value)} instead of a list.",
            mend=f"Send an object such as {_EXAMPLE}.",
            field=field,
        )
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _refuse_types(values: list[object], field: str, allowed: set[type], what: str) -> None:
    """The first value whose type is not allowed is named. Cheap: one pass in C over the types."""
    if set(map(type, values)) <= allowed:
        return
    at = next(position for position, value in enumerate(values) if type(value) not in allowed)
    raise InputError(
        "wrong-type",
        f"'{field}' has {_kind(values[at])} at position {at}; all of it must be {what}.",
        mend=f"Send {what} in '{field}'.",
        field=field,
    )


def _integers(members: dict[str, object], field: str) -> NDArray[np.int64]:
    values = _list(members, field)
    _refuse_types(values, field, {int}, "whole numbers")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InputError(
            "index-out-of-range", f"'{field}' has a number over 2^63.", mend="Check the array.", field=field
        ) from error


def _numbers(members: dict[str, object], field: str) -> NDArray[np.float32]:
    values = _list(members, field)
    # null is what NaN becomes in JSON: it is kept as NaN here, so that the check of values can name cell and gene.
    _refuse_types(values, field, {int, float, type(None)}, "numbers")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64).astype(np.float32)
    except OverflowError as error:
        raise InputError(
            "not-finite", f"'{field}' has a number beyond any float.", mend="Check the array.", field=field
        ) from error


def names_of(members: dict[str, object], field: str) -> list[str]:
    """A list of names, checked one by one. Raises InputError."""
    values = _list(members, field)
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
