"""The interfaces of a format: a `Reader` turns bytes into cells, a `Writer` turns results into bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from scpalm.app.codecs.result import Result
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.io.hdf5.view_facts import ViewFacts
from scpalm.model.io.labels import Categories


@dataclass(frozen=True)
class DecodeOptions:
    """Options for decoding a body.

    Attributes:
        layer: matrix of the file to read; None for the one that holds the counts.
        max_cells: maximum number of cells; None for no limit.
        max_bytes: maximum size of the uncompressed matrix in bytes; None for no limit.
        header_bytes: length of the JSON part of the body; None if all of it is JSON.
        scratch: folder for files that the reader makes, which may not exist yet; None if it may make none.
    """

    layer: str | None = None
    max_cells: int | None = None
    max_bytes: int | None = None
    header_bytes: int | None = None
    scratch: Path | None = None


class Reader(Protocol):
    """Reads bodies of one format.

    Attributes:
        name: short name, used in metrics.
        media_types: media types that it reads, the preferred one first.
        reads_files: whether the body must be a file.
        hidden: whether it serves a single route, and so takes no part in content negotiation.
    """

    name: str
    media_types: tuple[str, ...]
    reads_files: bool
    hidden: bool

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        """Yield the cells of a body in order, as one or more matrices with the same genes.

        Raises InputError, UnreadableError or OverLimitError, possibly after some matrices.
        """
        ...

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """Further members of a decoded body, for those ``names`` that it has.

        A table is returned as ``{"genes": [names], "values": [cells, names]}``. Raises InputError, OverLimitError.
        """
        ...


@runtime_checkable
class CarriesOptions(Protocol):
    """A reader whose bodies may hold options of the request in addition to the cells."""

    def further(self, body: bytes | Path, options: DecodeOptions) -> dict[str, object]:
        """All members of the body that are not its cells. Called before `decode`. Raises InputError."""
        ...


@runtime_checkable
class HasObs(Protocol):
    """A reader whose bodies have a table ``obs``."""

    def obs_columns(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, Categories]:
        """The named columns of ``obs``. Raises InputError for a column that does not exist."""
        ...

    def view_facts(self, body: bytes | Path, options: DecodeOptions) -> ViewFacts:
        """What the body has for a picture of its cells."""
        ...


class Writer(Protocol):
    """Writes results in one format.

    Attributes:
        media_type: media type that it writes.
        suffix: file name suffix of the format.
        extends_files: whether it adds results to the uploaded file, if that has the same format.
    """

    media_type: str
    suffix: str
    extends_files: bool

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        """Encode a result. Returns the bytes, or None if it was written to ``target``.

        ``original`` is the uploaded file, if it has the same format and `extends_files` is set.
        """
        ...
