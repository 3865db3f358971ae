"""The media type of a body by its first bytes: for bodies that are sent under another type, or under none."""

from __future__ import annotations

from pathlib import Path

import zstandard

from scpalm.model.io.other_formats.magic import HDF5
from scpalm.model.io.other_formats.sniff import ARROW_FILE, HEAD_BYTES, is_gzip, is_zip, peek

H5AD, JSON, ARROW = "application/x-hdf5", "application/json", "application/vnd.apache.arrow.stream"
FORM = "multipart/form-data"
# Types that say nothing: of libraries' defaults, of curl's -d, and of compressed files.
UNDECLARED = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "application/gzip",
        "application/x-gzip",
        "application/zip",
        "application/x-zip-compressed",
        "application/zstd",
        "application/hdf5",
        "application/x-h5",
        "application/vnd.apache.arrow.file",
    }
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_ARROW_STREAM = b"\xff\xff\xff\xff"
_FORM_MARK = b"content-disposition: form-data"


def content_of(body: bytes | Path, encoding: str) -> tuple[str | None, str]:
    """The media type that the first bytes show, or None, and the content encoding; undeclared gzip and zstd are found.

    Reads at most `HEAD_BYTES`, before and after decompression.
    """
    head = _head(body)
    if encoding in ("", "gzip") and is_gzip(head):
        return _media_type(peek(head)), "gzip"
    if encoding in ("", "zstd") and head.startswith(_ZSTD):
        return _media_type(_peek_zstd(head)), "zstd"
    return (_media_type(head), encoding) if not encoding else (None, encoding)


def boundary_of(body: bytes | Path) -> str:
    """The boundary of a form, which is its first line."""
    return _head(body).split(b"\n", 1)[0].strip()[2:].decode("latin-1")


def _head(body: bytes | Path) -> bytes:
    if isinstance(body, bytes):
        return body[:HEAD_BYTES]
    with body.open("rb") as file:
        return file.read(HEAD_BYTES)


def _peek_zstd(head: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(head) as reader:
            return reader.read(HEAD_BYTES)
    except zstandard.ZstdError:
        return b""


def _media_type(head: bytes) -> str | None:
    if head.startswith(HDF5) or is_zip(head):
        return H5AD
    if head.startswith((ARROW_FILE, _ARROW_STREAM)):
        return ARROW
    if head.startswith(b"--") and _FORM_MARK in head.lower():
        return FORM
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    return JSON if text.startswith((b"{", b"[")) else None
