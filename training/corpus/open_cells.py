"""Find the matrix of a file that holds the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scpalm.model.errors import InputError
from scpalm.model.io.cells import open_cells


def choose_layer(path: Path, wanted: str) -> str:
    """Resolve ``CorpusOptions.layer`` for a file. Raises InputError for a file without a matrix."""
    if wanted != "auto":
        return wanted
    for layer in ("X", "counts", "raw"):
        try:
            with open_cells(path, layer=layer) as file:
                first = next(file.chunks(256))
        except InputError as error:
            if error.code not in ("no-x", "no-such-layer"):
                raise
            continue
        if len(first.data) and bool((first.data == np.rint(first.data)).all()):
            return layer
    return "X"
