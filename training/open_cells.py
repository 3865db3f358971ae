"""A file of cells in either format, and which of its matrices holds the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import InputError
from model.h5ad import H5adFile
from training.zarr_cells import ZarrFile


def open_cells(path: Path, *, layer: str | None = None, totals_column: str | None = None) -> H5adFile | ZarrFile:
    """An h5ad file or a zarr store (a folder). Raises InputError."""
    if path.is_dir():
        return ZarrFile(path, layer=layer, totals_column=totals_column)
    return H5adFile(path, layer=layer, totals_column=totals_column)


def choose_layer(path: Path, wanted: str) -> str:
    """The matrix that is read, by the rule of ``CorpusOptions.layer``. Raises InputError for a file without matrix."""
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
