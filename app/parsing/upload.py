"""The body of a request on its way to a parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.model.genes.normalize import Declared


@dataclass(frozen=True)
class Upload:
    """The body of a request, and what the request says about it.

    Attributes:
        body: the bytes, or the file that holds them.
        media_type: of the cells (of the file's part, where the body was a form). content_encoding: "" for none.
        layer: which matrix of an h5ad file. declared: what the values are.
        max_cells, max_bytes: limits (bytes also after decompression); None for none.
        fields: further text fields of a form. extras: what is wanted of the body beside its cells, by name.
        header_bytes: see `DecodeOptions`.
    """

    body: bytes | Path
    media_type: str
    content_encoding: str = ""
    layer: str | None = None
    declared: Declared = "auto"
    max_cells: int | None = None
    max_bytes: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    header_bytes: int | None = None

    @property
    def size(self) -> int:
        """Bytes as sent."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)
