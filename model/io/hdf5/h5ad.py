"""h5ad files, read as a stream of cells. Files are untrusted: every object is checked before it is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns, check_length
from scpalm.model.genes.matching.names import name_genes
from scpalm.model.genes.matrix import CellMatrix, Origin
from scpalm.model.io.choose import SAMPLE_VALUES, choose_matrix, totals_column
from scpalm.model.io.hdf5.access import Node, child_names, find, open_hdf5
from scpalm.model.io.hdf5.axes import check_axes
from scpalm.model.io.hdf5.frame import Frame
from scpalm.model.io.hdf5.kinds import refuse_other_hdf5
from scpalm.model.io.hdf5.obsm import maps_of, obsm_table
from scpalm.model.io.hdf5.stored_matrix import Axes, StoredMatrix
from scpalm.model.io.hdf5.view_facts import ViewFacts, colors_of
from scpalm.model.io.loaded import totals_of


@dataclass(frozen=True)
class _Source:
    """One matrix of the file, with the names of its columns and what the file says about its values."""

    matrix: StoredMatrix
    columns: GeneColumns
    origin: Origin


class H5adFile:
    """A file of B cells x genes, opened for reading; a context manager.

    Gene names are ``var_names``, unless those are Ensembl ids (or plain numbers) and a column of ``var`` holds symbols.
    Ensembl ids are ``var_names`` or a column of ``var`` that holds them.

    Args:
        path: the file.
        layer: ``X``, ``raw`` for ``raw.X``, or the name of a layer; None for the one that holds the counts
            (`scpalm.model.io.choose`).
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
            self._layer, self._why = (layer, "") if layer else choose_matrix(self)
            # Open the matrix first: checking its shape against the limits is cheap, reading names is not.
            matrix = self._open_matrix(self._layer)
            check_axes(matrix, max_cells)
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
    def columns(self) -> GeneColumns:
        """What the file says about the columns of the chosen matrix."""
        return self._sources[self._layer].columns

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

    def obs_names(self) -> list[str]:
        """See `CellSource.obs_names`."""
        return self._obs.data_columns()

    def view_facts(self) -> ViewFacts:
        """What the file has for a picture of its cells. Raises InputError."""
        columns = self._obs.data_columns()
        maps = maps_of(self._file, self.num_cells, self._max_bytes)
        return ViewFacts(columns, maps, colors_of(self._file, self._obs, columns))

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        """See `scpalm.model.io.cells.CellSource`. Raises InputError, OverLimitError."""
        found = {name: obsm_table(self._file, name, self.num_cells, self._max_bytes) for name in names}
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
        axes = Axes(self.cells, source.columns, self.num_cells, source.origin, self._totals(), self._obs_totals())
        yield from source.matrix.blocks(size, axes)

    def rows(self, start: int, stop: int) -> CellMatrix:
        """Cells ``start`` to ``stop``. Reads neither names nor row pointers of other cells.

        Raises InputError (``by-columns``) if the matrix is stored column by column: its rows are spread over the file.
        """
        source = self._source(self._layer)
        names = self._obs.index(slice(start, stop))
        axes = Axes(names, source.columns, self.num_cells, source.origin, None, self._obs_totals(slice(start, stop)))
        return source.matrix.block(start, stop, axes)

    def matrix_names(self) -> list[str]:
        """Names of the matrices, as `layer` takes them; see `scpalm.model.io.choose.Matrices`."""
        return ["X", *self._layer_names()]

    def sample(self, name: str) -> NDArray[np.generic] | None:
        """Some stored values of a matrix, or None if there is none."""
        path, node = self._find_matrix(name)
        if node is None:
            return None
        try:
            return StoredMatrix(node, path, self._max_bytes).sample(SAMPLE_VALUES)
        except InputError:
            if name == "X":
                raise
            return None

    def num_columns(self, name: str) -> int | None:
        """Number of columns of a matrix, or None if there is none."""
        path, node = self._find_matrix(name)
        try:
            return None if node is None else StoredMatrix(node, path, self._max_bytes).shape[1]
        except InputError:  # reported when the matrix is opened, if it is the one to read
            return None

    def _source(self, layer: str) -> _Source:
        if layer not in self._sources:
            matrix = self._open_matrix(layer)
            check_length(matrix.shape[0], self.num_cells, matrix.name, "cells")
            self._sources[layer] = self._name_columns(layer, matrix)
        return self._sources[layer]

    def _find_matrix(self, layer: str) -> tuple[str, Node | None]:
        """The path of a matrix and its node, or None if there is none."""
        if layer == "raw":
            # anndata before 0.7 wrote raw as objects of the root.
            old = find(self._file, "raw.X")
            return ("raw/X", find(self._file, "raw/X")) if old is None else ("raw.X", old)
        path = "X" if layer == "X" else f"layers/{layer}"
        node = find(self._file, path) if "/" not in layer else None
        # Some versions of anndata write a missing X as an empty dataset.
        return path, None if isinstance(node, h5py.Dataset) and node.shape is None else node

    def _open_matrix(self, layer: str) -> StoredMatrix:
        path, node = self._find_matrix(layer)
        if node is None:
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
        return (["raw"] if self._find_matrix("raw")[1] is not None else []) + names

    def _name_columns(self, layer: str, matrix: StoredMatrix) -> _Source:
        name = {"raw/X": "raw/var", "raw.X": "raw.var"}.get(matrix.name, "var")
        cells = self._obs.index(slice(0, 200))
        columns = name_genes(Frame(find(self._file, name), name, self._max_bytes), name, matrix.shape[1], cells)
        own = find(self._file, "var")
        if name != "var" and own is not None:
            var = Frame(own, "var", self._max_bytes)
            columns = replace(columns, of_file=name_genes(var, "var", len(var.index())))
        origin = Origin(
            layer,
            self._why if layer == self._layer else "",
            self._log_base() if layer in ("X", "raw") else None,
            matrix.truth_values,
            self._totals_name or "",
        )
        return _Source(matrix, columns, origin)

    def _log_base(self) -> float | None:
        """The base of the logarithm that scanpy noted."""
        if find(self._file, "uns/log1p") is None:
            return None
        node = find(self._file, "uns/log1p/base")
        if not isinstance(node, h5py.Dataset) or node.shape != () or node.dtype.kind not in "iuf":
            return math.e
        return float(node[()])

    @cached_property
    def _totals_name(self) -> str | None:
        return totals_column(self._obs.columns_named())

    def _obs_totals(self, rows: slice = slice(None)) -> NDArray[np.float64] | None:
        """The totals of the cells that the file has, if it has any that are numbers."""
        if self._totals_name is None:
            return None
        values = self._obs.column(self._totals_name, rows)
        return None if values is None else totals_of(pd.Series(values))

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
