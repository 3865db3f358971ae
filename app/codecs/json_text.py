"""JSON bodies in the encodings that programs write: UTF-8, with or without a mark, UTF-16 and UTF-32."""

from __future__ import annotations

import codecs
import json

import orjson

from scpalm.app.codecs.json_lists import EXAMPLE
from scpalm.model.errors import InputError, UnreadableError

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The first four bytes of JSON without a mark: which of them are zero (RFC 4627, 3).
_ZEROS = {"1000": "utf-32-le", "0001": "utf-32-be", "1010": "utf-16-le", "0101": "utf-16-be"}


def parse_json(body: bytes) -> dict[str, object]:
    """The object in a JSON body. Raises UnreadableError, and InputError for other values than an object."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        members = _parse_again(body, error)
    if isinstance(members, list) and members and all(isinstance(row, dict) for row in members):
        raise InputError(
            "wrong-type",
            "The body is a list of objects, one a cell.",
            hint='Send one object: "genes" with the names, and "X" with one list of counts a cell.',
            field="body",
        )
    if not isinstance(members, dict):
        raise InputError(
            "wrong-type", "The body is not a JSON object.", hint=f"Send an object such as {EXAMPLE}.", field="body"
        )
    return members


def _parse_again(body: bytes, error: orjson.JSONDecodeError) -> object:
    text, encoding = _decoded(body)
    if encoding != "utf-8" or text is not None:
        try:
            return orjson.loads(text if text is not None else body)
        except orjson.JSONDecodeError as other:
            error, body = other, (text or "").encode("utf-8", "replace")
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


def _decoded(body: bytes) -> tuple[str | None, str]:
    """The text of a body with a byte order mark or in UTF-16 or UTF-32, else None; and its encoding."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return _text(body[len(mark) :], encoding), encoding
    zeros = "".join("0" if byte == 0 else "1" for byte in body[:4])
    guessed = _ZEROS.get(zeros)
    return (_text(body, guessed), guessed) if guessed else (None, "utf-8")


def _text(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError(
            "not-json",
            f"The body begins like JSON in {encoding.upper()}, but byte {error.start} is not.",
            hint="Send JSON as UTF-8.",
            field="body",
        ) from error
