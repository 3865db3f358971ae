"""The contracts of a format: a `Reader` turns bytes into cells, a `Writer` turns results into bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scpalm.app.codecs.result import Result
from scpalm.model.genes.matrix import CellMatrix


@dataclass(frozen=True)
class DecodeOptions:
    """What the request says about its cells, and what the service allows.

    Attributes:
        layer: which matrix of a file. max_cells: most cells. max_bytes: most bytes of the uncompressed matrix. None
            means no limit.
        header_bytes: length of the JSON part of a body that has one; None for all of it.
    """

    layer: str | None = None
    max_cells: int | None = None
    max_bytes: int | None = None
    header_bytes: int | None = None


class Reader(Protocol):
    """Reads bodies of one format.

    Attributes:
        name: short, for metrics. media_types: what it reads, the preferred one first.
        reads_files: whether its bodies must be files. hidden: whether only one route uses it (not for negotiation).
    """

    name: str
    media_types: tuple[str, ...]
    reads_files: bool
    hidden: bool

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        """Cells of a body, in order, in one or more parts that share their genes.

        Raises InputError, UnreadableError or OverLimitError, also between parts.
        """
        ...

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """What a decoded body holds in addition to its cells, of the given names.

        A table is ``{"genes": [names], "values": [cells, names]}``. Raises InputError, OverLimitError.
        """
        ...


class Writer(Protocol):
    """Writes answers in one format.

    Attributes:
        media_type: what it writes. suffix: of a file in this format. extends_files: whether it adds to the user's file,
            where the request was a file of the same format.
    """

    media_type: str
    suffix: str
    extends_files: bool

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        """The answer as bytes; or None when it was written to ``target``.

        ``original``: the request's file, where that has the same format and `extends_files` is set.
        """
        ...
