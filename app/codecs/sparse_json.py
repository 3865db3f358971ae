"""Cells as sparse JSON: ``{"genes", "obs_names"?, "indptr", "indices", "data"}``, a CSR matrix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import orjson

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.json_lists import EXAMPLE, indices_of, integers_of, names_of, numbers_of
from scpalm.app.codecs.registry import register_reader, register_writer
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.storage.values import IN_MEMORY_BYTES, row_blocks
from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.genes.matrix import CellMatrix


@register_reader
@register_writer
class SparseJsonCodec:
    """Reads cells as sparse JSON, writes results as JSON."""

    name = "json"
    media_type = "application/json"
    media_types: tuple[str, ...] = ("application/json",)
    suffix = ".json"
    reads_files = False
    hidden = False
    extends_files = False

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        if options.layer is not None:
            raise InputError(
                "no-such-layer",
                "Sparse JSON has no layers.",
                hint="Remove the layer parameter, or send h5ad.",
                field="layer",
            )
        members = _parse(body.read_bytes() if isinstance(body, Path) else body)
        indptr = integers_of(members, "indptr")
        num_cells = max(0, len(indptr) - 1)
        if options.max_cells is not None and num_cells > options.max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The body has {num_cells} cells; the limit is {options.max_cells}.",
                hint="Split it into several requests.",
                field="indptr",
            )
        genes = names_of(members, "genes")
        cells = names_of(members, "obs_names") if members.get("obs_names") is not None else None
        indices, data = integers_of(members, "indices"), numbers_of(members, "data")
        matrix = CellMatrix(
            indptr=indptr,
            indices=indices_of(indices),
            data=data,
            genes=genes,
            cells=cells if cells is not None else [str(row) for row in range(num_cells)],
        )
        matrix.validate()
        yield matrix

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """The named members of the body, unchanged."""
        members = _parse(body.read_bytes() if isinstance(body, Path) else body)
        return {name: members[name] for name in names if name in members}

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        main, *others = result.outputs
        head = _dumps({"model": result.note["model"], "obs_names": result.cells, **_columns(main)})
        tail = _dumps({name: value for name, value in result.note.items() if name != "model"})
        pieces = chain((head[:-1], b","), _values(main))
        for output in others:
            columns = _dumps(_columns(output))[:-1] + b"," if output.spec.columns else b"{"
            pieces = chain(pieces, (b"," + _dumps(output.spec.name) + b":" + columns,), _values(output), (b"}",))
        pieces = chain(pieces, (b"," + tail[1:],))
        if result.num_bytes <= IN_MEMORY_BYTES:
            return b"".join(pieces)
        with target.open("wb") as file:
            file.writelines(pieces)
        return None


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _columns(output: OutputValues) -> dict[str, object]:
    return {} if output.spec.columns is None else {"columns": list(output.spec.columns)}


def _values(output: OutputValues) -> Iterator[bytes]:
    """Yield the JSON of the members ``shape`` and ``values``, block by block."""
    yield b'"shape":' + _dumps(list(output.values.shape)) + b',"values":['
    for number, block in enumerate(row_blocks(output.values)):
        yield (b"," if number else b"") + _dumps(np.ascontiguousarray(block))[1:-1]
    yield b"]"


def _parse(body: bytes) -> dict[str, object]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        members = _parse_with_nan(body, error)
    if not isinstance(members, dict):
        raise InputError(
            "wrong-type", "The body is not a JSON object.", hint=f"Send an object such as {EXAMPLE}.", field="body"
        )
    return members


def _parse_with_nan(body: bytes, error: orjson.JSONDecodeError) -> object:
    # Python's json module writes NaN and Infinity, which are not JSON. Accept them, so that errors can name the cell.
    if any(word in body for word in (b"NaN", b"Infinity")):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise UnreadableError(
        "not-json",
        f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
        hint=f"Send an object such as {EXAMPLE}.",
        field="body",
    ) from error
