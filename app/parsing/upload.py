"""An upload on its way to a parser, and what the parser knows of it before its cells are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.spec import RequestSpec


@dataclass(frozen=True)
class Upload:
    """The bytes of a request, and what the request says about them.

    Attributes:
        body: the bytes, or the file that holds them. spec: what is asked.
        media_type: of the cells. content_encoding: "" for none. header_bytes: see `DecodeOptions`.
    """

    body: bytes | Path
    media_type: str
    spec: RequestSpec
    content_encoding: str = ""
    header_bytes: int | None = None

    @property
    def num_bytes(self) -> int:
        """As sent."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


@dataclass(frozen=True, eq=False)
class UploadHead:
    """What is known of an upload before its cells are read.

    Attributes:
        num_cells: B. coverage: genes known. columns: ``[genes_in]`` vocabulary position of each column, or -1.
        members: what the body holds in addition to its cells, of what the tasks read.
    """

    num_cells: int
    coverage: Coverage
    columns: NDArray[np.int32]
    members: Mapping[str, object] = field(default_factory=dict)
