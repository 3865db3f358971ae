"""An inference request as it came: JSON, and behind it the tensors that were sent as bytes.

Open Inference Protocol v2 (KServe) with the binary tensor extension (Triton): ``Inference-Header-Content-Length`` says
where the JSON ends; inputs with ``parameters.binary_data_size`` follow one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import orjson
from numpy.typing import NDArray

from scpalm.model.errors import InputError, UnreadableError

NUMBERS: dict[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
MEND = "See GET /v2/models/{name} for the inputs, and app/README.md for an example."

Tensor = NDArray[np.generic] | list[str]


@dataclass(frozen=True)
class Message:
    """What a request holds. head: its JSON. tensors: the inputs by name, numbers or strings, flat."""

    head: dict[str, object]
    tensors: dict[str, Tensor]


def read_message(body: bytes, header_bytes: int | None) -> Message:
    """Raises UnreadableError for bytes that are no message, InputError for inputs that do not fit their description."""
    length = len(body) if header_bytes is None else header_bytes
    if not 0 <= length <= len(body):
        raise UnreadableError(
            "header-length",
            f"Inference-Header-Content-Length is {length}, the body has {len(body)} bytes.",
            mend="Send the length of the JSON part.",
            field="Inference-Header-Content-Length",
        )
    try:
        head = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise UnreadableError("not-json", f"The request is not valid JSON: {error.msg}.", mend=MEND) from error
    inputs = head.get("inputs") if isinstance(head, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise InputError("missing-field", "The request has no list 'inputs'.", mend=MEND, field="inputs")
    tensors: dict[str, Tensor] = {}
    at = length
    for number, one in enumerate(inputs):
        name, kind, size, shape = _described(one, number)
        if name in tensors:
            raise InputError("twice", f"There are two inputs '{name}'.", mend=MEND, field=name)
        if shape > len(body):  # every number takes a byte at least, in JSON as well
            raise InputError("length-mismatch", f"Input '{name}' declares {shape} values.", mend=MEND, field=name)
        if size is None:
            tensors[name] = _of_json(name, kind, one.get("data"), shape)
        else:
            if size > len(body) - at:
                raise UnreadableError(
                    "truncated",
                    f"Input '{name}' declares {size} bytes, {len(body) - at} are left.",
                    mend="Send the body whole.",
                    field=name,
                )
            tensors[name] = _of_bytes(name, kind, body[at : at + size], shape)
            at += size
    return Message(head, tensors)


def _described(one: object, number: int) -> tuple[str, str, int | None, int]:
    """Name, datatype, bytes of binary data (None: JSON) and number of values."""
    field = f"inputs[{number}]"
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise InputError("missing-field", f"'{field}' has no name.", mend=MEND, field=field)
    name, kind, shape = one["name"][:100], one.get("datatype"), one.get("shape")
    if kind not in (*NUMBERS, "BYTES"):
        raise InputError("wrong-type", f"Input '{name}' has the datatype {str(kind)[:50]!r}.", mend=MEND, field=name)
    if not isinstance(shape, list) or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
        raise InputError("wrong-shape", f"Input '{name}' has no shape of whole numbers.", mend=MEND, field=name)
    parameters = one.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (not isinstance(size, int) or size < 0):
        raise InputError("wrong-type", f"binary_data_size of '{name}' is no length.", mend=MEND, field=name)
    return name, str(kind), size, prod(shape)


def _of_json(name: str, kind: str, data: object, count: int) -> Tensor:
    flat = _flat(data) if isinstance(data, list) else None
    if flat is None or len(flat) != count:
        found = "no list" if flat is None else f"{len(flat)} values"
        raise InputError(
            "length-mismatch", f"Input '{name}' has {found} in 'data', its shape says {count}.", mend=MEND, field=name
        )
    if kind == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise InputError("wrong-type", f"Input '{name}' is not all strings.", mend=MEND, field=name)
        return [str(value) for value in flat]
    if not set(map(type, flat)) <= {int, float, bool}:
        raise InputError("wrong-type", f"Input '{name}' is not all numbers.", mend=MEND, field=name)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=NUMBERS[kind])
    except (OverflowError, ValueError, TypeError) as error:
        raise InputError(
            "out-of-range", f"Input '{name}' has a number beyond {kind}.", mend=MEND, field=name
        ) from error


def _flat(data: list[object]) -> list[object]:
    """Nested rows one after the other; a shape with several axes may be sent either way."""
    for _ in range(8):
        if not any(isinstance(value, list) for value in data):
            return data
        data = [inner for value in data for inner in (value if isinstance(value, list) else [value])]
    return data


def _of_bytes(name: str, kind: str, content: bytes, count: int) -> Tensor:
    if kind == "BYTES":
        return _strings(name, content, count)
    dtype = np.dtype(NUMBERS[kind]).newbyteorder("<")
    if len(content) != count * dtype.itemsize:
        raise InputError(
            "length-mismatch",
            f"Input '{name}' has {len(content)} bytes, its shape says {count} values of {dtype.itemsize}.",
            mend=MEND,
            field=name,
        )
    return np.frombuffer(content, dtype)


def _strings(name: str, content: bytes, count: int) -> list[str]:
    """Elements with their length before each, 4 bytes, little endian."""
    out: list[str] = []
    at = 0
    while at < len(content) and len(out) <= count:
        length = int.from_bytes(content[at : at + 4], "little")
        piece = content[at + 4 : at + 4 + length]
        if len(piece) != length:
            break
        try:
            out.append(piece.decode())
        except UnicodeDecodeError as error:
            raise InputError("bad-name", f"Input '{name}' is not all UTF-8.", mend=MEND, field=name) from error
        at += 4 + length
    if at != len(content) or len(out) != count:
        raise InputError("length-mismatch", f"Input '{name}' does not hold {count} elements.", mend=MEND, field=name)
    return out
