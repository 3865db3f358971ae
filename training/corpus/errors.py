"""Errors of building and reading a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scpalm.model.errors import InputError


class CorpusError(RuntimeError):
    """A corpus cannot be built or read; the message names the file and says what to do."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an InputError within the block into a CorpusError that names the file."""
    try:
        yield
    except InputError as error:
        raise CorpusError(f"{path}: {error}") from error
