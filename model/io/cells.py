"""A file of cells in either format."""

from __future__ import annotations

from pathlib import Path

from scpalm.model.io.h5ad import H5adFile
from scpalm.model.io.zarr import ZarrFile


def open_cells(path: Path, *, layer: str | None = None, totals_column: str | None = None) -> H5adFile | ZarrFile:
    """An h5ad file or a zarr store (a folder). Raises InputError."""
    if path.is_dir():
        return ZarrFile(path, layer=layer, totals_column=totals_column)
    return H5adFile(path, layer=layer, totals_column=totals_column)
