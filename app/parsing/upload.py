"""An upload, and its head: what the parser knows before it reads the cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.io.labels import Categories
from scpalm.model.spec import RequestSpec


@dataclass(frozen=True)
class Upload:
    """The body of a request and its metadata.

    Attributes:
        body: the bytes, or the file that contains them.
        media_type: media type of the cells.
        spec: the requested tasks and options.
        content_encoding: content encoding of the body; "" for none.
        header_bytes: length of the JSON part of the body; see `DecodeOptions`.
        obs_columns: columns of ``obs`` to read, in addition to those that the spec asks for.
        labelled: the file of labelled cells that was uploaded with the cells; None without one.
    """

    body: bytes | Path
    media_type: str
    spec: RequestSpec
    content_encoding: str = ""
    header_bytes: int | None = None
    obs_columns: tuple[str, ...] = ()
    labelled: Upload | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the body as sent, in bytes."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


@dataclass(frozen=True, eq=False)
class UploadHead:
    """What is known about an upload before its cells are read.

    Attributes:
        num_cells: number of cells (B).
        coverage: how many genes are in the vocabulary.
        columns: ``[num_vars]``, position of each column of the file in the vocabulary, or -1.
        members: further members of the body that the tasks read, by name.
        obs: the requested columns of ``obs``, by name.
    """

    num_cells: int
    coverage: Coverage
    columns: NDArray[np.int32]
    members: Mapping[str, object] = field(default_factory=dict)
    obs: Mapping[str, Categories] = field(default_factory=dict)
