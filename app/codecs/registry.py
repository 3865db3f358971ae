"""The registry of formats. It imports every module in this folder once; decorators register readers and writers."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import TypeVar

from scpalm.app.codecs.codec import Reader, Writer

R = TypeVar("R", bound=type[Reader])
W = TypeVar("W", bound=type[Writer])

_readers: list[Reader] = []
_writers: list[Writer] = []


def register_reader(kind: R) -> R:
    """Class decorator that registers a `Reader`."""
    _readers.append(kind())
    return kind


def register_writer(kind: W) -> W:
    """Class decorator that registers a `Writer`. A class may be both a reader and a writer."""
    _writers.append(kind())
    return kind


@cache
def _load() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


@cache
def readers() -> tuple[Reader, ...]:
    """The readers that requests can choose by media type, ordered by name."""
    return tuple(reader for reader in all_readers() if not reader.hidden)


@cache
def all_readers() -> tuple[Reader, ...]:
    """All readers, including hidden ones, ordered by name."""
    _load()
    return tuple(sorted(_readers, key=lambda reader: reader.name))


@cache
def writers() -> dict[str, Writer]:
    """The writers by media type, ordered by media type."""
    _load()
    return {writer.media_type: writer for writer in sorted(_writers, key=lambda writer: writer.media_type)}


@cache
def readable_types() -> tuple[str, ...]:
    """The preferred media type of each reader."""
    return tuple(reader.media_types[0] for reader in readers())


@cache
def _by_media_type() -> dict[str, Reader]:
    return {media_type: reader for reader in all_readers() for media_type in reader.media_types}


def reader_for(media_type: str) -> Reader | None:
    """The reader of a media type, or None. Parameters of the media type are ignored."""
    return _by_media_type().get(media_type.partition(";")[0].strip().lower())


def writer_for(media_type: str) -> Writer | None:
    """The writer of exactly this media type, or None."""
    return writers().get(media_type)
