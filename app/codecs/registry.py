"""Finds the formats: every module in this folder is imported once, and the decorators collect what it declares."""

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
    """Class decorator: a format that is read."""
    _readers.append(kind())
    return kind


def register_writer(kind: W) -> W:
    """Class decorator: a format that is written. A class may be both."""
    _writers.append(kind())
    return kind


@cache
def _load() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


@cache
def readers() -> tuple[Reader, ...]:
    """Readers that requests can choose by their media type, in the order of their names."""
    return tuple(reader for reader in all_readers() if not reader.hidden)


@cache
def all_readers() -> tuple[Reader, ...]:
    """The same with those that belong to one route."""
    _load()
    return tuple(sorted(_readers, key=lambda reader: reader.name))


@cache
def writers() -> dict[str, Writer]:
    """Writers by their media type, in that order."""
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
    """The reader of a media type (parameters are ignored), None where there is none."""
    return _by_media_type().get(media_type.partition(";")[0].strip().lower())


def writer_for(media_type: str) -> Writer | None:
    """The writer of exactly this media type, None where there is none."""
    return writers().get(media_type)
