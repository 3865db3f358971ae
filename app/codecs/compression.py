"""``Content-Encoding``: undone in the parser's process, with a cap on what comes out."""

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
_ZSTD_INPUT = 1 << 12  # what comes out at once is at most 32,768 times as much: 128 MiB
_LARGEST_WINDOW = 1 << 27  # what `zstd --long` writes; a frame may ask for far more


def decompress(body: bytes | Path, encoding: str, target: Path, max_bytes: int | None) -> None:
    """Write the decompressed body to ``target``.

    Raises TooLargeError over ``max_bytes``, UnreadableError (``bad-compression``) for damaged data,
    UnsupportedMediaTypeError for an encoding that is not in CONTENT_ENCODINGS.
    """
    with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as source, target.open("wb") as out:
        size = 0
        for block in _blocks(source, encoding):
            size += len(block)
            if max_bytes is not None and size > max_bytes:
                raise TooLargeError(
                    f"The body is over {max_bytes} bytes once decompressed. Send fewer cells at a time.",
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
            mend="Compress it again, or send it without Content-Encoding.",
            field="Content-Encoding",
        ) from error


def _gzip_blocks(source: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source) as reader:
        while block := reader.read(_BLOCK):
            yield block


def _zstd_blocks(source: IO[bytes]) -> Iterator[bytes]:
    # Not zstandard's stream_reader: it takes a truncated frame for a whole one.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    frame = decompressor.decompressobj()
    whole = True
    while packed := source.read(_ZSTD_INPUT):
        while packed:
            yield frame.decompress(packed)
            whole, packed = frame.eof, frame.unused_data
            if whole:
                frame = decompressor.decompressobj()
    if not whole:
        raise EOFError("it ends early")


def check_encoding(encoding: str) -> None:
    """Raise UnsupportedMediaTypeError for an encoding that is neither "" nor one of CONTENT_ENCODINGS."""
    if encoding and encoding not in CONTENT_ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"Content-Encoding '{encoding[:50]}' is not understood. Use one of: {', '.join(CONTENT_ENCODINGS)}.",
            field="Content-Encoding",
        )
