"""Cells as an Arrow IPC stream: one sparse row per cell, gene names in the schema metadata."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.json_lists import indices_of, names_of
from scpalm.app.codecs.registry import register_reader, register_writer
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.storage.values import IN_MEMORY_BYTES, row_blocks, rows_per_block
from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.io.other_formats.sniff import ARROW_FILE
from scpalm.model.tasks.task import OutputSpec, Values

_HINT = (
    "Send an Arrow IPC stream with the columns 'indices' (list of integers), 'data' (list of numbers) and optionally "
    "'obs_names' (strings). Put a JSON list of the gene names into the schema metadata as 'genes'."
)
_READ_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError)


@register_reader
@register_writer
class ArrowCodec:
    """Reads the columns ``indices``, ``data`` and ``obs_names``; writes ``obs_names`` and a fixed-size list per output.

    A column of ``obs`` is written under its own name, with text for labels.

    The note of the result is JSON in the schema metadata, under ``scpalm``.
    """

    name = "arrow"
    media_type = "application/vnd.apache.arrow.stream"
    media_types: tuple[str, ...] = ("application/vnd.apache.arrow.stream",)
    suffix = ".arrows"
    reads_files = False
    hidden = False
    extends_files = False

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        if options.layer is not None:
            raise InputError("no-such-layer", "Arrow has no layers.", hint="Remove the layer parameter.", field="layer")
        yield _matrix(body.read_bytes() if isinstance(body, Path) else body, options)

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        return {}  # the format holds only cells

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        names = pa.array(result.cells, pa.string())
        fields = [pa.field("obs_names", pa.string()), *(_field(output) for output in result.outputs)]
        columns = {
            output.spec.name: list(output.spec.columns) for output in result.outputs if output.spec.columns is not None
        }
        schema = pa.schema(fields, metadata={"scpalm": orjson.dumps({**result.note, "columns": columns})})
        if result.num_bytes <= IN_MEMORY_BYTES:
            buffer = io.BytesIO()
            _write(buffer, schema, names, result.outputs)
            return buffer.getvalue()
        with target.open("wb") as file:
            _write(file, schema, names, result.outputs)
        return None


def _write(sink: IO[bytes], schema: pa.Schema, names: pa.Array, outputs: Sequence[OutputValues]) -> None:
    step = min(rows_per_block(output.values) for output in outputs)
    with pa.ipc.new_stream(sink, schema) as writer:
        start = 0
        for blocks in zip(*(row_blocks(output.values, step) for output in outputs), strict=True):
            columns = [_array(output.spec, block) for output, block in zip(outputs, blocks, strict=True)]
            writer.write_batch(pa.record_batch([names.slice(start, len(blocks[0])), *columns], schema=schema))
            start += len(blocks[0])


def _field(output: OutputValues) -> pa.Field:
    spec = output.spec
    kind = pa.float32() if output.values.dtype == np.float32 else pa.int32()
    if spec.placement == "obs" and spec.columns:
        return pa.field(spec.columns[0], kind if spec.categories is None else pa.string())
    return pa.field(spec.name, pa.list_(kind, output.values.shape[1]))


def _array(spec: OutputSpec, block: Values) -> pa.Array:
    if spec.placement != "obs":
        return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1])
    flat = block[:, 0]
    return pa.array(
        flat if spec.categories is None else spec.texts(flat), None if spec.categories is None else pa.string()
    )


def _matrix(body: bytes, options: DecodeOptions) -> CellMatrix:
    try:
        # Feather and R's write_feather write the file format: the stream with an index at its end.
        with (pa.ipc.open_file if body.startswith(ARROW_FILE) else pa.ipc.open_stream)(body) as reader:
            schema = reader.schema
            batches = list(_batches(_each(reader), options))
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise UnreadableError(
            "not-arrow",
            f"The body cannot be read as an Arrow IPC stream ({' '.join(str(error).split())[:200]}).",
            hint=_HINT,
            field="body",
        ) from error
    table = pa.Table.from_batches(batches, schema)
    genes = _genes(schema)
    indptr, indices = _lists(table, "indices", pa.types.is_integer)
    data_indptr, data = _lists(table, "data", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind))
    if not np.array_equal(indptr, data_indptr):
        row = int(np.flatnonzero(indptr != data_indptr)[0]) - 1
        raise InputError(
            "length-mismatch", f"'indices' and 'data' have different lengths in row {row}.", hint=_HINT, field="data"
        )
    cells = _cells(table)
    matrix = CellMatrix(
        indptr=indptr,
        indices=indices_of(indices),
        data=_as_float32(data),
        genes=genes,
        cells=cells,
    )
    matrix.validate()
    return matrix


def _as_float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _each(reader: pa.RecordBatchStreamReader | pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _batches(reader: Iterator[pa.RecordBatch], options: DecodeOptions) -> Iterator[pa.RecordBatch]:
    num_cells = num_bytes = 0
    for batch in reader:
        batch.validate(full=True)
        num_cells += batch.num_rows
        num_bytes += batch.nbytes
        if options.max_cells is not None and num_cells > options.max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The body has more than {options.max_cells} cells, which is the limit.",
                hint="Split it into several requests.",
                field="indices",
            )
        if options.max_bytes is not None and num_bytes > options.max_bytes:
            raise OverLimitError(
                "declared-size",
                f"The decoded body is larger than {options.max_bytes} bytes, which is the limit.",
                hint="Send fewer cells per request.",
                field="body",
            )
        yield batch


def _genes(schema: pa.Schema) -> list[str]:
    text = (schema.metadata or {}).get(b"genes")
    if text is None:
        raise InputError("missing-field", "The schema metadata has no 'genes'.", hint=_HINT, field="genes")
    return _names_in(text)


# Clients send the same list with every request, and checking thousands of names takes longer than a few cells.
@lru_cache(maxsize=4)
def _names_in(text: bytes) -> list[str]:
    try:
        genes = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError("wrong-type", "'genes' in the metadata is not JSON.", hint=_HINT, field="genes") from error
    return names_of({"genes": genes}, "genes")


def _lists(
    table: pa.Table, name: str, allowed: Callable[[pa.DataType], bool]
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """A list column as row pointers and values."""
    column = _column(table, name)
    kind = column.type
    if not _is_list(kind) or not allowed(_value_type(kind)):
        raise InputError("wrong-type", f"Column '{name}' has the type {str(kind)[:100]}.", hint=_HINT, field=name)
    indptr, values = [np.zeros(1, np.int64)], []
    for chunk in column.chunks:
        inner = chunk.flatten()
        if chunk.null_count or inner.null_count:
            raise InputError("not-finite", f"Column '{name}' has missing values.", hint=_HINT, field=name)
        if pa.types.is_dictionary(inner.type):
            inner = inner.dictionary_decode()
        indptr.append(_ends(chunk) + indptr[-1][-1])
        values.append(inner.to_numpy())
    # Most bodies have a single batch, which needs no copy.
    flat = values[0] if len(values) == 1 else np.concatenate(values) if values else np.zeros(0, np.float32)
    return np.concatenate(indptr), flat


def _value_type(kind: pa.DataType) -> pa.DataType:
    value = kind.value_type
    return value.value_type if pa.types.is_dictionary(value) else value


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in (*tests, pa.types.is_fixed_size_list))


def _ends(chunk: pa.Array) -> NDArray[np.int64]:
    """Where each list ends in the flat values."""
    if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
        offsets = chunk.offsets.to_numpy().astype(np.int64)
        return offsets[1:] - offsets[0]
    import pyarrow.compute as pc  # slow to import, and only views need it

    lengths = pc.list_value_length(chunk)  # the offsets of views are in any order
    return np.cumsum(lengths.to_numpy(zero_copy_only=False).astype(np.int64))


def _plain_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """String views (Polars) and dictionaries of strings (pandas' categories) as strings; anything else unchanged."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.large_string()) if is_text else column


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if table.schema.names.count(name) != 1:
        raise InputError("missing-field", f"The table must have exactly one column '{name}'.", hint=_HINT, field=name)
    return table.column(name)


def _cells(table: pa.Table) -> list[str]:
    if "obs_names" not in table.schema.names:
        return [str(row) for row in range(table.num_rows)]
    column = _plain_strings(_column(table, "obs_names"))
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
        raise InputError("wrong-type", "'obs_names' must contain only strings.", hint=_HINT, field="obs_names")
    return names_of({"obs_names": column.to_pylist()}, "obs_names")
