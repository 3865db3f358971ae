"""Messages between the service and a parser process: a JSON header and raw arrays. Reading one cannot run code.

A frame contains the length of the header (8 bytes, little endian), the header, and the arrays. Arrays of large
messages are sent as separate frames, to avoid copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

# Messages with at most this many bytes of arrays are sent in one frame.
_INLINE_BYTES = 512 << 10
_ALIGNMENT = 8
_DTYPES = frozenset({"|b1", "|u1", "<i4", "<i8", "<f4", "<f8"})


class MessageError(ValueError):
    """The bytes are not a valid message. The text says why."""


@dataclass(frozen=True, eq=False)
class Message:
    """One message: its kind, JSON content, and numeric arrays by name."""

    kind: str
    content: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def send(connection: Connection, message: Message) -> None:
    """Send a message. Raises OSError if the other side is gone."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    inline = sum(array.nbytes for array in arrays.values()) <= _INLINE_BYTES
    header = orjson.dumps(
        {
            "kind": message.kind,
            "content": message.content,
            "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()],
            "inline": inline,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    pieces = [len(header).to_bytes(8, "little"), header, b" " * (-len(header) % _ALIGNMENT)]
    if inline:
        for array in arrays.values():
            pieces += [array.tobytes(), bytes(-array.nbytes % _ALIGNMENT)]
    connection.send_bytes(b"".join(pieces))
    if not inline:
        for array in arrays.values():
            if array.nbytes:
                connection.send_bytes(array.reshape(-1).view(np.uint8).data)


def receive(connection: Connection, max_bytes: int | None = None) -> Message:
    """Receive the next message. Its arrays may be read-only.

    Raises:
        MessageError: the bytes are not a valid message, or the message exceeds ``max_bytes``.
        EOFError, OSError: the other side is gone.
    """
    frame = connection.recv_bytes(max_bytes)
    try:
        end = 8 + int.from_bytes(frame[:8], "little")
        header = orjson.loads(frame[8:end])
        kind, content, inline = header["kind"], header["content"], header["inline"]
        described = [(str(name), _dtype(text), _shape(shape)) for name, text, shape in header["arrays"]]
        if not isinstance(kind, str) or not isinstance(content, dict):
            raise MessageError("The header of the message is malformed.")
    except Exception as error:  # whatever a hostile header makes the parsers raise
        raise MessageError(f"The message cannot be read ({type(error).__name__}).") from error
    total = sum(prod(shape) * dtype.itemsize for _, dtype, shape in described)
    if max_bytes is not None and total > max_bytes:
        raise MessageError(f"The message declares {total} bytes; the limit is {max_bytes}.")
    start = end + (-(end - 8) % _ALIGNMENT)
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in described:
        size = prod(shape) * dtype.itemsize
        if inline:
            if start + size > len(frame):
                raise MessageError("The message ends early.")
            arrays[name] = np.frombuffer(frame, dtype, prod(shape), start).reshape(shape)
            start += size + (-size % _ALIGNMENT)
        else:
            arrays[name] = _receive_array(connection, dtype, shape)
    return Message(kind, content, arrays)


def _receive_array(connection: Connection, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    if not array.nbytes:
        return array
    try:
        received = connection.recv_bytes_into(array.reshape(-1).view(np.uint8).data)
    except ValueError as error:  # longer than declared
        raise MessageError("An array of the message is longer than declared.") from error
    if received != array.nbytes:
        raise MessageError("An array of the message is shorter than declared.")
    return array


def _dtype(text: object) -> np.dtype[Any]:
    if text not in _DTYPES:
        raise MessageError("An array of the message has an unknown type.")
    return np.dtype(str(text))


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape) or len(shape) > 4:
        raise MessageError("An array of the message has an invalid shape.")
    return tuple(shape)
