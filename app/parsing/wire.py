"""Convert uploads, cells, results and errors to messages and back. Readers validate everything in a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.errors import ServiceError, service_error
from scpalm.app.parsing.messages import Message, MessageError
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.storage.values import StoredValues
from scpalm.model.errors import BundleError, InputError, OverLimitError, ParameterError, UnreadableError
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.io.labels import Categories
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.task import OutputSpec

_INPUT_ERRORS = {kind.__name__: kind for kind in (InputError, UnreadableError, OverLimitError)}
_BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError)
_COVERAGE, _INPUT = TypeAdapter(Coverage), TypeAdapter(InputReport)

# --- uploads


def pack_upload(upload: Upload) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Content and arrays of a message with an upload."""
    content = {
        "media_type": upload.media_type,
        "content_encoding": upload.content_encoding,
        "spec": upload.spec.as_dict(),
        "header_bytes": upload.header_bytes,
        "obs_columns": list(upload.obs_columns),
        "path": str(upload.body) if isinstance(upload.body, Path) else None,
    }
    body = b"" if isinstance(upload.body, Path) else upload.body
    return content, {"body": np.frombuffer(body, np.uint8)}


def unpack_upload(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Upload:
    """The inverse of `pack_upload`."""
    body = arrays["body"].tobytes() if content["path"] is None else Path(content["path"])
    return Upload(
        body,
        content["media_type"],
        RequestSpec.from_dict(content["spec"]),
        content["content_encoding"],
        content["header_bytes"],
        tuple(content["obs_columns"]),
    )


# --- cells


def pack_part(head: UploadHead | None, measured: NDArray[np.bool_] | None, cells: Prepared | None) -> Message:
    """A message with cells. The first message of an upload also has the head and the measured genes."""
    content: dict[str, Any] = {"head": None, "cells": None}
    arrays: dict[str, NDArray[Any]] = {}
    if head is not None:
        assert measured is not None
        members, arrays = _pack_members(head.members)
        content["head"] = {
            "num_cells": head.num_cells,
            "coverage": head.coverage.as_dict(),
            "members": members,
            "obs": {name: list(column.names) for name, column in head.obs.items()},
        }
        arrays |= {"columns": head.columns, "measured": measured}
        arrays |= {f"obs.{name}": column.codes for name, column in head.obs.items()}
    if cells is not None:
        rows = cells.rows
        content["cells"] = {"names": cells.cells, "input": asdict(cells.input)}
        arrays |= {
            "indptr": rows.indptr, "gene_index": rows.gene_index, "value": rows.value, "totals": cells.totals
        }  # fmt: skip
    return Message("part", content, arrays)


class PartReader:
    """Reads the messages of one upload, in order.

    Args:
        num_genes: genes of the model.
        max_cells: most cells of an upload; None for no limit.
    """

    def __init__(self, num_genes: int, max_cells: int | None) -> None:
        self._num_genes, self._max_cells = num_genes, max_cells
        self._head: UploadHead | None = None
        self._gene_set = GeneSet(np.zeros(num_genes, bool))
        self._left = 0

    def read(self, message: Message) -> tuple[UploadHead | Prepared, ...]:
        """The head, the cells, or both. Raises MessageError."""
        try:
            found: list[UploadHead | Prepared] = []
            if message.content["head"] is not None:
                found.append(self._read_head(message.content["head"], message))
            if message.content["cells"] is not None:
                found.append(self._read_cells(message.content["cells"], message))
            return tuple(found)
        except _BROKEN as error:
            raise MessageError(f"The cells cannot be read ({type(error).__name__}: {error}).") from error

    def _read_head(self, content: Mapping[str, Any], message: Message) -> UploadHead:
        if self._head is not None:
            raise MessageError("The upload has two heads.")
        head = _read_head(content, message)
        measured, columns = _array(message, "measured", np.bool_), head.columns
        if len(measured) != self._num_genes or ((columns < -1) | (columns >= self._num_genes)).any():
            raise MessageError("The genes of the upload are not those of the model.")
        if head.num_cells < 1 or (self._max_cells is not None and head.num_cells > self._max_cells):
            raise MessageError(f"The upload declares {head.num_cells} cells.")
        self._head, self._gene_set, self._left = head, GeneSet(measured), head.num_cells
        return head

    def _read_cells(self, content: Mapping[str, Any], message: Message) -> Prepared:
        if self._head is None:
            raise MessageError("The cells came before the head of the upload.")
        indptr, totals = _array(message, "indptr", np.int64), _array(message, "totals", np.float64)
        num_rows = len(indptr) - 1
        rows = Rows(
            indptr,
            _array(message, "gene_index", np.int32),
            _array(message, "value", np.float32),
            (self._gene_set,),
            np.zeros(num_rows, np.int32),
        )
        rows.check(self._num_genes)
        self._left -= num_rows
        if self._left < 0:
            raise MessageError("The upload has more cells than it declared.")
        names = [str(name) for name in content["names"]]
        if not len(names) == len(totals) == num_rows:
            raise MessageError("The number of names or totals differs from the number of cells.")
        return Prepared(rows, names, self._head.coverage, _INPUT.validate_python(content["input"]), totals)


def _read_head(content: Mapping[str, Any], message: Message) -> UploadHead:
    num_cells = int(content["num_cells"])
    return UploadHead(
        num_cells,
        _COVERAGE.validate_python(content["coverage"]),
        _array(message, "columns", np.int32),
        _read_members(content["members"], message.arrays),
        {name: _read_column(name, texts, num_cells, message) for name, texts in content["obs"].items()},
    )


def _read_column(name: str, texts: Sequence[object], num_cells: int, message: Message) -> Categories:
    codes = _array(message, f"obs.{name}", np.int32)
    if len(codes) != num_cells or (len(codes) and not -1 <= codes.min() <= codes.max() < len(texts)):
        raise MessageError(f"The column '{name[:50]}' does not fit the cells.")
    return Categories(tuple(map(str, texts)), codes)


def _array(message: Message, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    array = message.arrays[name]
    if array.dtype != dtype or array.ndim != 1:
        raise MessageError(f"'{name}' has the wrong type.")
    return array


def _pack_members(members: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    content: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in members.items():
        table = value.get("values") if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(table, np.ndarray):
            content[name] = {"table": value["genes"]}
            arrays[f"member.{name}"] = table
        else:
            content[name] = {"json": value}
    return content, arrays


def _read_members(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    return {
        name: {"genes": value["table"], "values": arrays[f"member.{name}"]} if "table" in value else value["json"]
        for name, value in content.items()
    }


# --- results


def pack_result(result: Result) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Content and arrays of a message with a result. Stored values stay in their files."""
    outputs: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for output in result.outputs:
        spec, values = output.spec, output.values
        described = describe_output(spec)
        if isinstance(values, StoredValues):
            described["stored"] = values.as_dict()
        else:
            arrays[f"values.{spec.name}"] = values
        if spec.var_columns is not None:
            arrays[f"var_columns.{spec.name}"] = spec.var_columns
        outputs.append(described)
    return {"cells": result.cells, "outputs": outputs, "note": dict(result.note)}, arrays


def unpack_result(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Result:
    """The inverse of `pack_result`."""
    outputs = []
    for described in content["outputs"]:
        spec = read_output(described, arrays.get(f"var_columns.{described['name']}"))
        stored = described.get("stored")
        values = arrays[f"values.{spec.name}"] if stored is None else StoredValues.from_dict(stored)
        outputs.append(OutputValues(spec, values))
    return Result(content["cells"], tuple(outputs), content["note"])


def describe_output(spec: OutputSpec) -> dict[str, Any]:
    """An output spec as JSON, without its ``var_columns``."""
    return {
        "name": spec.name,
        "key": spec.key,
        "width": spec.width,
        "dtype": np.dtype(spec.dtype).name,
        "columns": None if spec.columns is None else list(spec.columns),
        "placement": spec.placement,
        "categories": None if spec.categories is None else list(spec.categories),
    }


def read_output(described: Mapping[str, Any], var_columns: NDArray[np.int64] | None) -> OutputSpec:
    """The inverse of `describe_output`."""
    return OutputSpec(
        described["name"],
        described["key"],
        described["width"],
        np.int32 if described["dtype"] == "int32" else np.float32,
        described["columns"],
        described["placement"],
        var_columns,
        described.get("categories"),
    )


# --- errors


def pack_error(error: InputError | ServiceError | BundleError) -> Message:
    """A message with an error, which the other side raises again."""
    if isinstance(error, BundleError):
        return Message("error", {"class": "BundleError", "detail": str(error)})
    if isinstance(error, ServiceError):
        content = {"class": "ServiceError", "code": error.code, "retry_after": error.retry_after}
        return Message("error", {**content, "detail": error.detail, "field": error.field})
    content = {"class": type(error).__name__, "code": error.code, "hint": error.hint, "detail": error.detail}
    return Message("error", {**content, "field": error.field, "cell": error.cell, "gene": error.gene})


def read_error(message: Message) -> Exception:
    """The error in a message. Raises MessageError if its class is unknown."""
    content = message.content
    try:
        name, detail = content["class"], str(content["detail"])
        if name == "BundleError":
            return BundleError(detail)
        if name == "ServiceError":
            seconds = content["retry_after"]
            return service_error(
                str(content["code"]), detail, _text(content["field"]), None if seconds is None else int(seconds)
            )
        if name == "ParameterError":
            return ParameterError(detail, field=_text(content["field"]))
        return _INPUT_ERRORS[name](
            str(content["code"]),
            detail,
            hint=str(content["hint"]),
            field=_text(content["field"]),
            cell=_text(content["cell"]),
            gene=_text(content["gene"]),
        )
    except _BROKEN as error:
        raise MessageError(f"The error message cannot be read ({type(error).__name__}).") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)
