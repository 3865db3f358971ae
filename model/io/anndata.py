"""Cells of an AnnData in memory, read like those of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matching.names import name_genes
from scpalm.model.genes.matrix import CellMatrix, Origin
from scpalm.model.io.choose import choose_matrix
from scpalm.model.io.choose import totals_column as find_totals
from scpalm.model.io.frame_table import FrameTable, numbers_of
from scpalm.model.io.loaded import log_base, sample_of, totals_of


class AnnDataCells:
    """Cells x genes of an AnnData; see `scpalm.model.io.cells.CellSource`. Copies only the current chunk.

    Args:
        adata: the cells.
        layer: ``X``, ``raw``, the name of a layer, or None for the one that holds the counts.
        totals_column: column of ``obs`` with each cell's total count over all genes.

    Raises InputError: ``no-x``, ``no-such-layer``, ``no-cells``, ``no-genes``.
    """

    def __init__(self, adata: AnnData, *, layer: str | None = None, totals_column: str | None = None) -> None:
        self._adata = adata
        why = ""
        if layer is None:
            layer, why = choose_matrix(_Matrices(adata))
        self._matrix = _matrix(adata, layer)
        var = adata.raw.var if layer == "raw" else adata.var
        for number, axis in ((adata.n_obs, "cells"), (len(var), "genes")):
            if number < 1:
                raise InputError(f"no-{axis}", f"The AnnData has 0 {axis}.", hint="Pass at least one.", field="X")
        where = "raw/var" if layer == "raw" else "var"
        cells = [str(name) for name in adata.obs_names[:200]]
        self.columns = name_genes(FrameTable(var), where, self._matrix.shape[1], cells)
        if layer == "raw":
            own = name_genes(FrameTable(adata.var), "var", adata.n_vars)
            self.columns = replace(self.columns, of_file=own)
        found = find_totals([str(name) for name in adata.obs.columns])
        self._obs_totals = None if found is None else totals_of(adata.obs[found])
        base = log_base(adata.uns.get("log1p")) if layer in ("X", "raw") else None
        self._origin = Origin(layer, why, base, self._matrix.dtype == np.bool_, found or "")
        self._totals = None if totals_column is None else np.asarray(adata.obs[totals_column], dtype=np.float64)

    def __enter__(self) -> AnnDataCells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close."""

    @property
    def num_cells(self) -> int:
        """B."""
        return int(self._adata.n_obs)

    def chunks(self, size: int) -> Iterator[CellMatrix]:
        for start in range(0, self.num_cells, size):
            yield self.rows(start, min(start + size, self.num_cells))

    def rows(self, start: int, stop: int) -> CellMatrix:
        with np.errstate(over="ignore"):
            rows = self._matrix[start:stop]
            # scipy has no sparse matrices of half precision.
            part = sparse.csr_matrix(rows.astype(np.float32) if rows.dtype == np.float16 else rows)
            data = part.data.astype(np.float32)
        return CellMatrix(
            part.indptr.astype(np.int64),
            part.indices.astype(np.int32),
            data,
            self.columns.names,
            [str(name) for name in self._adata.obs_names[start:stop]],
            self.columns.ensembl_ids,
            None if self._totals is None else self._totals[start:stop],
            cells_in_all=self.num_cells,
            columns=self.columns,
            origin=self._origin,
            obs_totals=None if self._obs_totals is None else self._obs_totals[start:stop],
        )

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        if name not in self._adata.obs:
            return None
        column = self._adata.obs[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object or str(column.dtype) == "str":
            column = column.astype(object).where(column.notna(), "")
        return np.asarray(column)

    def obs_names(self) -> list[str]:
        return [str(name) for name in self._adata.obs.columns]

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        return {name: numbers_of(name, self._adata.obsm[name]) for name in names if name in self._adata.obsm}


class _Matrices:
    """The matrices of an AnnData, for `choose_matrix`."""

    def __init__(self, adata: AnnData) -> None:
        self._adata = adata

    def matrix_names(self) -> list[str]:
        return ["X", *(["raw"] if self._adata.raw is not None else []), *self._adata.layers]

    def sample(self, name: str) -> NDArray[np.generic] | None:
        return sample_of(_found(self._adata, name))

    def num_columns(self, name: str) -> int | None:
        matrix = _found(self._adata, name)
        return None if matrix is None else int(matrix.shape[1])


def _found(adata: AnnData, layer: str) -> Any:
    if layer == "raw":
        return None if adata.raw is None else adata.raw.X
    return adata.X if layer == "X" else adata.layers.get(layer)


def _matrix(adata: AnnData, layer: str) -> Any:
    matrix = _found(adata, layer)
    if matrix is None:
        names = [*(["raw"] if adata.raw is not None else []), *adata.layers]
        others = f"Choose another matrix with layer=: {', '.join(names)}." if names else "It has no other matrix."
        if layer == "X":
            raise InputError("no-x", "The AnnData has no X.", hint=others, field="X")
        raise InputError("no-such-layer", f"The AnnData has no layer '{layer}'.", hint=others, field="layer")
    return matrix
