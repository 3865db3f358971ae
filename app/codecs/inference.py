"""Cells as the tensors of an inference request. Read only: ``scpalm.app.v2`` writes the responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.inference_message import HINT, Message, Tensor, read_message
from scpalm.app.codecs.json_lists import indices_of, names_of
from scpalm.app.codecs.registry import register_reader
from scpalm.model.errors import InputError, OverLimitError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import option_tensors

MEDIA_TYPE = "application/vnd.scpalm.inference"
CELL_INPUTS = ("genes", "indptr", "indices", "data", "obs_names")
HEAD_MEMBERS = ("outputs", "parameters", "id")


@register_reader
class InferenceReader:
    """Reads ``indptr``, ``indices``, ``data``, ``genes``, optional ``obs_names``, and BYTES inputs of the tasks."""

    name = "inference"
    media_types: tuple[str, ...] = (MEDIA_TYPE,)
    reads_files = False
    hidden = True  # only the routes under /v2 accept it

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        tensors = _read(body, options).tensors
        for name in tensors:
            if name not in (*CELL_INPUTS, *option_inputs()):
                raise InputError("unknown-input", f"There is no input '{name}'.", hint=HINT, field=name)
        indptr = _integers(tensors, "indptr")
        num_cells = max(0, len(indptr) - 1)
        if options.max_cells is not None and num_cells > options.max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The request has {num_cells} cells; the limit is {options.max_cells}.",
                hint="Split it into several requests.",
                field="indptr",
            )
        indices, data = _integers(tensors, "indices"), _numbers(tensors, "data")
        with np.errstate(over="ignore"):
            values = data.astype(np.float32)
        matrix = CellMatrix(
            indptr=indptr,
            indices=indices_of(indices),
            data=values,
            genes=_strings(tensors, "genes"),
            cells=_strings(tensors, "obs_names") if "obs_names" in tensors else [str(n) for n in range(num_cells)],
        )
        matrix.validate()
        yield matrix

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """``outputs``, ``parameters`` and ``id`` of the JSON part, and the inputs that set options of tasks."""
        message = _read(body, options)
        found: dict[str, object] = {name: message.head[name] for name in HEAD_MEMBERS if name in message.head}
        return found | {name: _strings(message.tensors, name) for name in option_inputs() if name in message.tensors}


@cache
def option_inputs() -> tuple[str, ...]:
    """Names of the inputs that set options of tasks, such as drugs."""
    return tuple(tensor for task in tasks().values() for tensor in option_tensors(task).values())


def _read(body: bytes | Path, options: DecodeOptions) -> Message:
    return read_message(body.read_bytes() if isinstance(body, Path) else body, options.header_bytes)


def _numbers(tensors: dict[str, Tensor], name: str) -> NDArray[np.generic]:
    found = tensors.get(name)
    if found is None:
        raise InputError("missing-field", f"There is no input '{name}'.", hint=HINT, field=name)
    if isinstance(found, list):
        raise InputError("wrong-type", f"Input '{name}' is BYTES but must be numeric.", hint=HINT, field=name)
    return found


def _integers(tensors: dict[str, Tensor], name: str) -> NDArray[np.int64]:
    found = _numbers(tensors, name)
    if found.dtype.kind not in "iu":
        raise InputError("wrong-type", f"Input '{name}' must have an INT datatype.", hint=HINT, field=name)
    # UINT64 values beyond INT64 become negative here, and validation then refuses them.
    return found.astype(np.int64)


def _strings(tensors: dict[str, Tensor], name: str) -> list[str]:
    found = tensors.get(name)
    if found is None:
        raise InputError("missing-field", f"There is no input '{name}'.", hint=HINT, field=name)
    if not isinstance(found, list):
        raise InputError("wrong-type", f"Input '{name}' must have the datatype BYTES.", hint=HINT, field=name)
    return names_of({name: found}, name)
