"""Parse an inference request: JSON, followed by the tensors that were sent as binary data.

This is the Open Inference Protocol v2 (KServe) with the binary tensor extension (Triton).
``Inference-Header-Content-Length`` is the length of the JSON. Inputs with ``parameters.binary_data_size`` follow it in
order.
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
HINT = "See GET /v2/models/{name} for the inputs, and app/README.md for an example."

Tensor = NDArray[np.generic] | list[str]


@dataclass(frozen=True)
class Message:
    """A parsed request.

    Attributes:
        head: the JSON part.
        tensors: the inputs by name, flattened; numbers or strings.
    """

    head: dict[str, object]
    tensors: dict[str, Tensor]


def read_message(body: bytes, header_bytes: int | None) -> Message:
    """Parse a body.

    Raises:
        UnreadableError: the bytes are not a message.
        InputError: an input does not match its declared datatype or shape.
    """
    length = len(body) if header_bytes is None else header_bytes
    if not 0 <= length <= len(body):
        raise UnreadableError(
            "header-length",
            f"Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes.",
            hint="Send the length of the JSON part in this header.",
            field="Inference-Header-Content-Length",
        )
    try:
        head = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise UnreadableError("not-json", f"The request is not valid JSON: {error.msg}.", hint=HINT) from error
    inputs = head.get("inputs") if isinstance(head, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise InputError("missing-field", "The request has no list 'inputs'.", hint=HINT, field="inputs")
    tensors: dict[str, Tensor] = {}
    offset = length
    for position, entry in enumerate(inputs):
        name, kind, size, count = _declaration(entry, position)
        if name in tensors:
            raise InputError("twice", f"There are two inputs '{name}'.", hint=HINT, field=name)
        if count > len(body):  # every value takes at least one byte, in JSON as well
            raise InputError(
                "length-mismatch",
                f"Input '{name}' declares {count} values, more than the body has bytes.",
                hint=HINT,
                field=name,
            )
        if size is None:
            tensors[name] = _of_json(name, kind, entry.get("data"), count)
        else:
            if size > len(body) - offset:
                raise UnreadableError(
                    "truncated",
                    f"Input '{name}' declares {size} bytes, but only {len(body) - offset} are left.",
                    hint="Send the complete body.",
                    field=name,
                )
            tensors[name] = _of_bytes(name, kind, body[offset : offset + size], count)
            offset += size
    return Message(head, tensors)


def _declaration(entry: object, position: int) -> tuple[str, str, int | None, int]:
    """Name, datatype, number of bytes of binary data (None for JSON), and number of values."""
    field = f"inputs[{position}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError("missing-field", f"'{field}' has no name.", hint=HINT, field=field)
    name, kind, shape = entry["name"][:100], entry.get("datatype"), entry.get("shape")
    if kind not in (*NUMBERS, "BYTES"):
        raise InputError(
            "wrong-type", f"Input '{name}' has the unknown datatype {str(kind)[:50]!r}.", hint=HINT, field=name
        )
    if not isinstance(shape, list) or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
        raise InputError(
            "wrong-shape", f"The shape of input '{name}' must be a list of integers.", hint=HINT, field=name
        )
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (not isinstance(size, int) or size < 0):
        raise InputError(
            "wrong-type", f"binary_data_size of '{name}' must be a number of bytes.", hint=HINT, field=name
        )
    return name, str(kind), size, prod(shape)


def _of_json(name: str, kind: str, data: object, count: int) -> Tensor:
    flat = _flat(data) if isinstance(data, list) else None
    if flat is None or len(flat) != count:
        found = "no list" if flat is None else f"{len(flat)} values"
        raise InputError(
            "length-mismatch",
            f"Input '{name}' has {found} in 'data', but its shape declares {count} values.",
            hint=HINT,
            field=name,
        )
    if kind == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise InputError("wrong-type", f"Input '{name}' must contain only strings.", hint=HINT, field=name)
        return [str(value) for value in flat]
    if not set(map(type, flat)) <= {int, float, bool}:
        raise InputError("wrong-type", f"Input '{name}' must contain only numbers.", hint=HINT, field=name)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=NUMBERS[kind])
    except (OverflowError, ValueError, TypeError) as error:
        raise InputError(
            "out-of-range", f"Input '{name}' has a number outside the range of {kind}.", hint=HINT, field=name
        ) from error


def _flat(data: list[object]) -> list[object]:
    """Flatten nested lists; tensors with several axes may be sent nested or flat."""
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
            f"Input '{name}' has {len(content)} bytes, but its shape needs {count} values of {dtype.itemsize} bytes.",
            hint=HINT,
            field=name,
        )
    return np.frombuffer(content, dtype)


def _strings(name: str, content: bytes, count: int) -> list[str]:
    """Parse elements that each follow their length (4 bytes, little endian)."""
    out: list[str] = []
    offset = 0
    while offset < len(content) and len(out) <= count:
        length = int.from_bytes(content[offset : offset + 4], "little")
        element = content[offset + 4 : offset + 4 + length]
        if len(element) != length:
            break
        try:
            out.append(element.decode())
        except UnicodeDecodeError as error:
            raise InputError("bad-name", f"Input '{name}' is not valid UTF-8.", hint=HINT, field=name) from error
        offset += 4 + length
    if offset != len(content) or len(out) != count:
        raise InputError("length-mismatch", f"Input '{name}' does not contain {count} elements.", hint=HINT, field=name)
    return out
