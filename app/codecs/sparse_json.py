"""Cells as JSON: ``{"genes", "obs_names"?, "indptr", "indices", "data", "shape"?}``, a CSR matrix; or rows in ``X``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.json_lists import indices_of, integers_of, list_of, names_of, numbers_of
from scpalm.app.codecs.json_text import parse_json
from scpalm.app.codecs.registry import register_reader, register_writer
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.storage.values import IN_MEMORY_BYTES, row_blocks
from scpalm.model.errors import InputError, OverLimitError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.tasks.common_options import CELL_MEMBERS

Numbers = NDArray[np.float32]


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

    def __init__(self) -> None:
        self._last: tuple[bytes | Path, dict[str, object]] | None = None

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        if options.layer is not None:
            raise InputError(
                "no-such-layer",
                "Sparse JSON has no layers.",
                hint="Remove the layer parameter, or send h5ad.",
                field="layer",
            )
        try:
            yield self._matrix(self._parsed(body), options)
        finally:
            self._last = None

    def _matrix(self, members: dict[str, object], options: DecodeOptions) -> CellMatrix:
        rows = members.get("X", members.get("indptr"))
        num_cells = max(0, len(rows) - ("X" not in members)) if isinstance(rows, list) else 0
        if options.max_cells is not None and num_cells > options.max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The body has {num_cells} cells; the limit is {options.max_cells}.",
                hint="Split it into several requests.",
                field="X" if "X" in members else "indptr",
            )
        genes = names_of(members, "genes")
        cells = names_of(members, "obs_names") if members.get("obs_names") is not None else None
        indptr, indices, data = _sparse(members, genes)
        _check_shape(members, num_cells, len(genes))
        matrix = CellMatrix(
            indptr=indptr,
            indices=indices,
            data=data,
            genes=genes,
            cells=cells if cells is not None else [str(row) for row in range(num_cells)],
        )
        matrix.validate()
        return matrix

    def further(self, body: bytes | Path, options: DecodeOptions) -> dict[str, object]:
        """All members that are not cells. The parsed body is kept until `decode` has run."""
        return {name: value for name, value in self._parsed(body).items() if name not in _CELLS}

    def _parsed(self, body: bytes | Path) -> dict[str, object]:
        if self._last is None or self._last[0] is not body:
            self._last = (body, parse_json(_content(body)))
        return self._last[1]

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """The named members of the body, unchanged."""
        members = self._parsed(body)
        return {name: members[name] for name in names if name in members}

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        main, *others = result.outputs
        head = _dumps(
            {
                "model": result.note["model"],
                "obs_names": result.cells,
                **_columns(main),
                **{name: texts for output in result.outputs for name, texts in _obs_lists(output)},
            }
        )
        tail = _dumps({name: value for name, value in result.note.items() if name != "model"})
        pieces = chain((head[:-1], b","), _values(main))
        for output in others:
            if output.spec.placement == "obs":
                continue  # written above, as a flat list
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
        rows = block if output.spec.categories is None else output.spec.texts(block).tolist()
        yield (b"," if number else b"") + _dumps(rows if isinstance(rows, list) else np.ascontiguousarray(rows))[1:-1]
    yield b"]"


def _obs_lists(output: OutputValues) -> Iterator[tuple[str, object]]:
    """A column of obs as a flat list, under the name of the column: text for labels."""
    spec = output.spec
    if spec.placement == "obs" and spec.columns:
        flat = output.load()[:, 0]
        yield spec.columns[0], flat if spec.categories is None else spec.texts(flat).tolist()


_CELLS = frozenset(CELL_MEMBERS)


def _content(body: bytes | Path) -> bytes:
    return body.read_bytes() if isinstance(body, Path) else body


def _sparse(members: dict[str, object], genes: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32], Numbers]:
    """Row pointers, indices and values. Raises InputError."""
    if "X" in members:
        return _of_rows(members, len(genes))
    data = members.get("data")
    if isinstance(data, list) and data and isinstance(data[0], list):
        raise InputError(
            "wrong-type",
            "'data' is a list of lists: a dense matrix.",
            hint='Send it as "X", without indptr and indices; or make it sparse with scipy.sparse.csr_matrix(X).',
            field="data",
        )
    indptr = integers_of(members, "indptr")
    return indptr, indices_of(integers_of(members, "indices")), numbers_of(members, "data")


def _of_rows(members: dict[str, object], num_genes: int) -> tuple[NDArray[np.int64], NDArray[np.int32], Numbers]:
    """The sparse form of dense rows in ``X``."""
    extra = [name for name in ("indptr", "indices", "data") if name in members]
    if extra:
        raise InputError("wrong-type", f"The body has both 'X' and '{extra[0]}'.", hint="Send one of them.", field="X")
    rows = list_of(members, "X")
    if not all(isinstance(row, list) for row in rows):
        raise InputError(
            "wrong-type",
            "'X' must be a list of rows, one list of counts a cell.",
            hint='For example {"genes": ["CD3D", "NKG7"], "X": [[4, 0], [1, 7]]}.',
            field="X",
        )
    for number, row in enumerate(rows):
        if len(row) != num_genes:  # type: ignore[arg-type]
            raise InputError(
                "length-mismatch",
                f"Row {number} of 'X' has {len(row)} values, but there are {num_genes} genes.",  # type: ignore[arg-type]
                hint="Send one value per gene in each row; cells are rows.",
                field="X",
            )
    dense = numbers_of({"X": list(chain.from_iterable(rows))}, "X").reshape(len(rows), num_genes)  # type: ignore[arg-type]
    row_of, column = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(dense, axis=1))]).astype(np.int64)
    return indptr, column.astype(np.int32), dense[row_of, column]


def _check_shape(members: dict[str, object], num_cells: int, num_genes: int) -> None:
    """Raise InputError if the body has a ``shape`` that differs from its arrays, as CSC sent as CSR has."""
    if members.get("shape") is None:
        return
    shape = integers_of(members, "shape").tolist()
    if shape != [num_cells, num_genes]:
        raise InputError(
            "wrong-shape",
            f"'shape' is {shape[:3]}, but the arrays have {num_cells} cells and 'genes' has {num_genes} names.",
            hint="Send CSR with cells as rows: matrix.tocsr() in SciPy; the transpose if genes are rows.",
            field="shape",
        )
