"""h5ad files, read as a stream of cells. Files are untrusted: every object is checked before it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError, OverLimitError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.names import check_length, name_genes
from scpalm.model.io.frame import Frame
from scpalm.model.io.hdf5 import attribute, child_names, find, open_hdf5, refuse_over
from scpalm.model.io.hdf5_kinds import refuse_other_hdf5
from scpalm.model.io.stored_matrix import Axes, StoredMatrix

_MAX_COLUMNS = 50_000  # of a dataframe in obsm
_LARGEST_AXIS = np.iinfo(np.int32).max


@dataclass(frozen=True)
class _Source:
    """One matrix of the file, with the names of its columns."""

    matrix: StoredMatrix
    genes: list[str]
    ensembl_ids: list[str] | None


class H5adFile:
    """A file of B cells x genes, opened for reading; a context manager.

    Gene names are ``var_names``, unless those are Ensembl ids (or plain numbers) and a column of ``var`` holds symbols.
    Ensembl ids are ``var_names`` or a column of ``var`` that holds them.

    Args:
        path: the file.
        layer: None or ``X`` for X, ``raw`` for ``raw.X``, or the name of a layer.
        totals_column: column of ``obs`` with each cell's total count over all genes, for files with only some genes.
        max_cells: largest number of cells.
        max_bytes: largest declared, uncompressed size of the matrix, and of any column of names.

    Raises:
        UnreadableError: ``no-such-file``, ``not-hdf5``, ``truncated-h5ad``, ``broken-h5ad``.
        InputError: ``no-x``, ``no-such-layer``, ``no-cells``, ``no-genes``, ``shape-mismatch``, ``external-link``,
            ``external-storage``, ``index-out-of-range`` and others that name the part of the file at fault.
        OverLimitError: ``too-many-cells``, ``declared-size``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        layer: str | None = None,
        totals_column: str | None = None,
        max_cells: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._totals_column = totals_column
        self._file = open_hdf5(path)
        try:
            refuse_other_hdf5(self._file, Path(path))
            self._obs = Frame(find(self._file, "obs"), "obs", max_bytes)
            self._sources: dict[str, _Source] = {}
            self._layer = layer or "X"
            # Open the matrix first: checking its shape against the limits is cheap, reading names is not.
            matrix = self._open_matrix(self._layer)
            self._check_axes(matrix, max_cells)
            self._num_cells = matrix.shape[0]
            self._sources[self._layer] = self._name_columns(self._layer, matrix)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> H5adFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def num_cells(self) -> int:
        """B, the number of rows."""
        return self._num_cells

    @property
    def genes(self) -> list[str]:
        """Names of the columns of the chosen matrix, preferably symbols."""
        return self._sources[self._layer].genes

    @property
    def ensembl_ids(self) -> list[str] | None:
        """Ensembl id of each column ("" where unknown), or None if the file has none."""
        return self._sources[self._layer].ensembl_ids

    @cached_property
    def cells(self) -> list[str]:
        """Names of the rows (``obs_names``)."""
        names = self._obs.index()
        check_length(len(names), self.num_cells, "obs", "cells")
        return names

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        """A column of ``obs`` ``[B]``: strings ("" if missing), numbers or booleans. None if there is none."""
        values = self._obs.column(name)
        if values is not None:
            check_length(len(values), self.num_cells, f"obs/{name[:200]}", "cells")
        return values

    def obsm_table(self, name: str) -> tuple[list[str], NDArray[np.float32]] | None:
        """A dataframe of numbers in ``obsm``: column names, and values ``[B, columns]`` with NaN where missing.

        Returns None if there is none. Raises InputError if it is not a dataframe of numbers, OverLimitError if it is
        too large.
        """
        path = f"obsm/{name}"
        node = find(self._file, path)
        if node is None:
            return None
        if not isinstance(node, h5py.Group) or attribute(node, "encoding-type") != "dataframe":
            raise InputError(
                "not-a-dataframe",
                f"'{path}' has no column names.",
                hint=f"Store a pandas DataFrame with one column per gene in obsm['{name}'].",
                field=path,
            )
        frame = Frame(node, path, self._max_bytes)
        names = frame.columns(_MAX_COLUMNS)
        refuse_over(4.0 * len(names) * self.num_cells, self._max_bytes, path)
        values = np.empty((self.num_cells, len(names)), dtype=np.float32)
        for number, column in enumerate(names):
            found = frame.column(column)
            what = f"{path}/{column[:200]}"
            if found is None or found.dtype.kind not in "biuf":
                raise InputError("not-numbers", f"'{what}' does not hold numbers.", hint="Leave it out.", field=what)
            check_length(len(found), self.num_cells, what, "cells")
            values[:, number] = found
        return names, values

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        """See `scpalm.model.io.cells.CellSource`. Raises InputError, OverLimitError."""
        found = {name: self.obsm_table(name) for name in names}
        return {name: {"genes": table[0], "values": table[1]} for name, table in found.items() if table is not None}

    def chunks(self, size: int, layer: str | None = None) -> Iterator[CellMatrix]:
        """The cells in order, ``size`` at a time. In memory: one chunk, the names and the row pointers.

        Args:
            size: cells per chunk, at least 1.
            layer: a matrix other than the one chosen at opening; its columns may have other names (``raw``).
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        source = self._source(layer or self._layer)
        axes = Axes(self.cells, source.genes, source.ensembl_ids, self._totals(), self.num_cells)
        yield from source.matrix.blocks(size, axes)

    def rows(self, start: int, stop: int) -> CellMatrix:
        """Cells ``start`` to ``stop``. Reads neither names nor row pointers of other cells.

        Raises InputError (``by-columns``) if the matrix is stored column by column: its rows are spread over the file.
        """
        source = self._source(self._layer)
        names = self._obs.index(slice(start, stop))
        axes = Axes(names, source.genes, source.ensembl_ids, None, self.num_cells)
        return source.matrix.block(start, stop, axes)

    def _source(self, layer: str) -> _Source:
        if layer not in self._sources:
            matrix = self._open_matrix(layer)
            check_length(matrix.shape[0], self.num_cells, matrix.name, "cells")
            self._sources[layer] = self._name_columns(layer, matrix)
        return self._sources[layer]

    def _open_matrix(self, layer: str) -> StoredMatrix:
        path = {"X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")
        node = find(self._file, path) if "/" not in layer else None
        # Some versions of anndata write a missing X as an empty dataset.
        if node is None or (isinstance(node, h5py.Dataset) and node.shape is None):
            layers = self._layer_names()
            others = f"Choose another matrix of the file with layer=: {', '.join(layers)}." if layers else ""
            if layer == "X":
                raise InputError(
                    "no-x",
                    "The file has no X.",
                    hint=others or "Store the raw counts in X and write the file again.",
                    field="X",
                )
            raise InputError(
                "no-such-layer",
                f"The file has no layer '{layer[:100]}'.",
                hint=others or "Leave out layer: X is the only matrix in the file.",
                field="layer",
            )
        return StoredMatrix(node, path, self._max_bytes)

    def _layer_names(self) -> list[str]:
        layers = find(self._file, "layers")
        names = child_names(layers) if isinstance(layers, h5py.Group) else []
        return (["raw"] if find(self._file, "raw/X") is not None else []) + names

    def _check_axes(self, matrix: StoredMatrix, max_cells: int | None) -> None:
        num_cells, num_genes = matrix.shape
        for number, axis in ((num_cells, "cells"), (num_genes, "genes")):
            if number < 1:
                raise InputError(
                    f"no-{axis}", f"'{matrix.name}' has 0 {axis}.", hint="Send at least one.", field=matrix.name
                )
            if number > _LARGEST_AXIS:
                raise OverLimitError(
                    "declared-size", f"'{matrix.name}' has {number} {axis}.", hint="Check the file.", field=matrix.name
                )
        if max_cells is not None and num_cells > max_cells:
            raise OverLimitError(
                "too-many-cells",
                f"The file has {num_cells} cells, but the limit is {max_cells}.",
                hint=f"Send it in parts of at most {max_cells} cells, or use `scpalm embed`.",
                field=matrix.name,
            )

    def _name_columns(self, layer: str, matrix: StoredMatrix) -> _Source:
        name = "raw/var" if layer == "raw" else "var"
        names = name_genes(Frame(find(self._file, name), name, self._max_bytes), name, matrix.shape[1])
        return _Source(matrix, names.genes, names.ensembl_ids)

    def _totals(self) -> NDArray[np.float64] | None:
        if self._totals_column is None:
            return None
        values = self.obs_column(self._totals_column)
        try:  # numbers may be stored as text, e.g. in a categorical column
            numbers = None if values is None else np.asarray(values).astype(np.float64)
        except (TypeError, ValueError):
            numbers = None
        if numbers is None:
            raise InputError(
                "no-totals",
                f"obs has no column of numbers named '{self._totals_column}'.",
                hint="Give the name of the column that holds each cell's total count.",
                field=f"obs/{self._totals_column}",
            )
        totals = numbers
        bad = np.flatnonzero(~(np.isfinite(totals) & (totals > 0)))
        if len(bad):
            cell = self.cells[bad[0]]
            raise InputError(
                "bad-total",
                f"Cell '{cell}' has the total {totals[bad[0]]} in '{self._totals_column}'.",
                hint="Totals must be finite and greater than 0.",
                field=f"obs/{self._totals_column}",
                cell=cell,
            )
        return totals
