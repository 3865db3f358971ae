"""Decompress bodies with ``Content-Encoding``, with a limit on the output. Runs in the parser process."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from scpalm.app.errors import TooLargeError, UnsupportedMediaTypeError
from scpalm.model.errors import UnreadableError

CONTENT_ENCODINGS = ("gzip", "zstd")
_BLOCK = 1 << 20
_ZSTD_INPUT = 1 << 12  # zstd expands its input by a factor of at most 32,768: 128 MiB per step
_MAX_WINDOW = 1 << 27  # the window of `zstd --long`; a frame may request far more


def decompress(body: bytes | Path, encoding: str, target: Path, max_bytes: int | None) -> None:
    """Write the decompressed body to ``target``.

    Raises:
        TooLargeError: the output exceeds ``max_bytes``.
        UnreadableError: the data is damaged (``bad-compression``).
        UnsupportedMediaTypeError: the encoding is not in CONTENT_ENCODINGS.
    """
    with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source, target.open("wb") as out:
        size = 0
        for block in _blocks(source, encoding):
            size += len(block)
            if max_bytes is not None and size > max_bytes:
                raise TooLargeError(
                    f"The decompressed body is larger than {max_bytes} bytes. Send fewer cells per request.",
                    field="Content-Encoding",
                )
            out.write(block)


def _blocks(source: IO[bytes], encoding: str) -> Iterator[bytes]:
    check_encoding(encoding)
    try:
        yield from _gzip_blocks(source) if encoding == "gzip" else _zstd_blocks(source)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UnreadableError(
            "bad-compression",
            f"The body is not valid {encoding} data ({str(error)[:200]}).",
            hint="Compress it again, or send it uncompressed without Content-Encoding.",
            field="Content-Encoding",
        ) from error


def _gzip_blocks(source: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source) as reader:
        while block := reader.read(_BLOCK):
            yield block


def _zstd_blocks(source: IO[bytes]) -> Iterator[bytes]:
    # zstandard's stream_reader does not detect truncated frames, so use a decompressobj.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame = decompressor.decompressobj()
    complete = True
    while compressed := source.read(_ZSTD_INPUT):
        while compressed:
            yield frame.decompress(compressed)
            complete, compressed = frame.eof, frame.unused_data
            if complete:
                frame = decompressor.decompressobj()
    if not complete:
        raise EOFError("it ends early")


def check_encoding(encoding: str) -> None:
    """Raise UnsupportedMediaTypeError unless the encoding is "" or one of CONTENT_ENCODINGS."""
    if encoding and encoding not in CONTENT_ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"Content-Encoding '{encoding[:50]}' is not supported. Use one of: {', '.join(CONTENT_ENCODINGS)}.",
            field="Content-Encoding",
        )
