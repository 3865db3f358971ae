"""Sources of cells: an h5ad file, a zarr store or an AnnData in memory, all behind one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError, did_you_mean
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.model.io.labels import Categories

if TYPE_CHECKING:
    from anndata import AnnData

# Import anndata only for type checks: it takes a second, and h5ad files are read without it.
Source: TypeAlias = "Path | str | AnnData"
# Columns that an error lists.
_LISTED = 12


class CellSource(Protocol):
    """B cells x genes, read in chunks; a context manager.

    Attributes:
        columns: what the source says about the columns.
        num_cells: B.
    """

    @property
    def columns(self) -> GeneColumns: ...

    @property
    def num_cells(self) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def chunks(self, size: int) -> Iterator[CellMatrix]:
        """All cells in order, ``size`` at a time. Raises InputError."""
        ...

    def rows(self, start: int, stop: int) -> CellMatrix:
        """Cells ``start`` to ``stop``. Raises InputError (``by-columns``) if the matrix is stored column by column."""
        ...

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        """A column of ``obs`` ``[B]``, or None if there is none."""
        ...

    def obs_names(self) -> list[str]:
        """Names of the columns of ``obs``."""
        ...

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        """Those of the named ``obsm`` dataframes that exist, each as ``{"genes": [names], "values": [B, names]}``."""
        ...


def column_of(source: CellSource, name: str) -> Categories:
    """A column of ``obs`` as text. Raises InputError if there is none of that name."""
    values = source.obs_column(name)
    if values is None:
        raise no_column(name, source.obs_names())
    return Categories.of(values)


def no_column(name: str, known: Sequence[str], obs: str = "obs") -> InputError:
    """The error for a name that no column of ``obs`` has; its text lists those that exist."""
    if not known:
        hint = "It has no columns at all: add one, or choose another file."
    else:
        more = " ..." if len(known) > _LISTED else ""
        hint = f"{did_you_mean(name, known)}It has {', '.join(column[:50] for column in known[:_LISTED])}{more}."
    return InputError("no-obs-column", f"{obs} has no column '{name[:100]}'.", hint=hint, field=name[:100])


def open_cells(source: Source, *, layer: str | None = None, totals_column: str | None = None) -> CellSource:
    """Open an h5ad file, a zarr store (a folder) or an AnnData.

    Args:
        source: path of a file or folder, or an AnnData.
        layer: ``X``, ``raw``, the name of a layer, or None for the matrix that holds the counts.
        totals_column: column of ``obs`` with each cell's total count over all genes, for files with only some genes.

    Raises InputError.
    """
    if not isinstance(source, Path | str):
        from scpalm.model.io.anndata import AnnDataCells

        return AnnDataCells(source, layer=layer, totals_column=totals_column)
    path = Path(source)
    if path.is_dir():
        from scpalm.model.io.zarr import ZarrFile

        return ZarrFile(path, layer=layer, totals_column=totals_column)
    if not path.is_file():
        raise InputError("no-such-file", f"There is no file {path}.", hint="Give an .h5ad file or a zarr store.")
    return H5adFile(path, layer=layer, totals_column=totals_column)
