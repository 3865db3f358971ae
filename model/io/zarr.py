"""AnnData stores in zarr, read as a stream of cells like h5ad files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import check_length
from scpalm.model.genes.matching.names import name_genes
from scpalm.model.genes.matrix import CellMatrix, Origin
from scpalm.model.io.choose import choose_matrix
from scpalm.model.io.choose import totals_column as find_totals
from scpalm.model.io.frame_table import FrameTable, numbers_of
from scpalm.model.io.loaded import log_base, sample_of, totals_of

_WRITE_AGAIN = "Write the store again with anndata's write_zarr."


class ZarrFile:
    """Cells x genes of a zarr store; a context manager. Only one chunk of the matrix is in memory at a time.

    ``layer`` and ``totals_column`` are those of `H5adFile`. Raises InputError.
    """

    def __init__(self, path: Path, *, layer: str | None = None, totals_column: str | None = None) -> None:
        import zarr
        from anndata.io import read_elem

        _refuse_pickles(path)
        try:
            root: Any = zarr.open_group(str(path), mode="r")
            self._root: Any = root
            self._obs: Any = root["obs"]
            why = ""
            if layer is None:
                layer, why = choose_matrix(self)
            chosen = _path_of(layer)
            if chosen not in root:
                raise InputError(
                    "no-such-layer", f"The store has no '{chosen}'.", hint="Choose another layer.", field="layer"
                )
            where = "raw/var" if layer == "raw" else "var"
            var: pd.DataFrame = read_elem(root[where])
            self._matrix: Any = root[chosen]
            self._encoding = "" if hasattr(self._matrix, "shape") else str(self._matrix.attrs["encoding-type"])
            self._shape = tuple(self._matrix.attrs["shape"] if self._encoding else self._matrix.shape)
            num_names = self._index_node().shape[0]
        except InputError:
            raise
        except Exception as error:  # zarr and anndata raise many types for a damaged store
            raise _broken(error) from error
        self._name = chosen
        check_length(num_names, self._shape[0], "obs", "cells")
        self.columns = name_genes(FrameTable(var), where, self._shape[1], self._names(slice(0, 200)))
        if layer == "raw":
            own: pd.DataFrame = read_elem(root["var"])
            self.columns = replace(self.columns, of_file=name_genes(FrameTable(own), "var", len(own)))
        self._totals_column = totals_column
        found = find_totals([str(name) for name in self._obs.attrs.get("column-order", ())])
        self._obs_totals = None if found is None else totals_of(pd.Series(self.obs_column(found)))
        noted = "uns/log1p" in root and layer in ("X", "raw")
        base = log_base(read_elem(root["uns/log1p"])) if noted else None
        values = self._matrix["data"] if self._encoding else self._matrix
        self._origin = Origin(layer, why, base, values.dtype == np.bool_, found or "")

    def __enter__(self) -> ZarrFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close."""

    @property
    def num_cells(self) -> int:
        """B, the number of rows."""
        return int(self._shape[0])

    def matrix_names(self) -> list[str]:
        """See `scpalm.model.io.choose.Matrices`."""
        layers = list(self._root["layers"]) if "layers" in self._root else []
        return ["X", *(["raw"] if "raw/X" in self._root else []), *layers]

    def sample(self, name: str) -> NDArray[np.generic] | None:
        """See `scpalm.model.io.choose.Matrices`."""
        path = _path_of(name)
        return sample_of(self._root[path]) if path in self._root else None

    def num_columns(self, name: str) -> int | None:
        """See `scpalm.model.io.choose.Matrices`."""
        path = _path_of(name)
        if path not in self._root:
            return None
        node = self._root[path]
        return int((node.shape if hasattr(node, "shape") else node.attrs["shape"])[1])

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        """A column of ``obs`` ``[B]``, or None if there is none. Strings are "" where missing."""
        from anndata.io import read_elem

        if name not in self._obs:
            return None
        column = pd.Series(read_elem(self._obs[name]))
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object or str(column.dtype) == "str":
            column = column.astype(object).where(column.notna(), "")
        return np.asarray(column)

    def obs_names(self) -> list[str]:
        """See `CellSource.obs_names`."""
        return [str(name) for name in self._obs.attrs.get("column-order", ())]

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        """See `CellSource.tables`. Raises InputError if a table is not a dataframe of numbers."""
        from anndata.io import read_elem

        found = {name: read_elem(self._root[f"obsm/{name}"]) for name in names if f"obsm/{name}" in self._root}
        return {name: numbers_of(name, value) for name, value in found.items()}

    def chunks(self, size: int) -> Iterator[CellMatrix]:
        """The cells in order, ``size`` at a time."""
        from anndata.io import sparse_dataset

        # anndata handles a matrix stored by columns, and reads the row pointers only once.
        matrix = sparse_dataset(self._matrix) if self._encoding else self._matrix
        for start in range(0, self.num_cells, size):
            stop = min(start + size, self.num_cells)
            yield self._cells(sparse.csr_matrix(matrix[start:stop]), start)

    def rows(self, start: int, stop: int) -> CellMatrix:
        """Cells ``start`` to ``stop``. Reads neither names nor row pointers of other cells.

        Raises InputError (``by-columns``) if the matrix is stored column by column: its rows are spread over the store.
        """
        if self._encoding not in ("", "csr_matrix"):
            raise InputError(
                "by-columns",
                f"'{self._name}' is stored column by column ({self._encoding}).",
                hint="Convert it once with anndata: adata.X = adata.X.tocsr().",
                field=self._name,
            )
        try:
            return self._cells(self._read(start, stop), start)
        except InputError:
            raise
        except Exception as error:
            raise _broken(error) from error

    def _read(self, start: int, stop: int) -> sparse.csr_matrix:
        if not self._encoding:
            return sparse.csr_matrix(self._matrix[start:stop])
        bounds = np.asarray(self._matrix["indptr"][start : stop + 1]).astype(np.int64)
        entries = slice(int(bounds[0]), int(bounds[-1]))
        indices, data = self._matrix["indices"][entries], self._matrix["data"][entries]
        part = sparse.csr_matrix((data, indices, bounds - bounds[0]), shape=(stop - start, self._shape[1]))
        part.check_format()
        return part

    def _cells(self, part: sparse.csr_matrix, start: int) -> CellMatrix:
        rows = slice(start, start + part.shape[0])
        part.sum_duplicates()
        return CellMatrix(
            part.indptr.astype(np.int64),
            part.indices.astype(np.int32),
            part.data.astype(np.float32),
            self.columns.names,
            self._names(rows),
            self.columns.ensembl_ids,
            None if self._totals is None else self._totals[rows],
            cells_in_all=self.num_cells,
            columns=self.columns,
            origin=self._origin,
            obs_totals=None if self._obs_totals is None else self._obs_totals[rows],
        )

    @cached_property
    def _totals(self) -> NDArray[np.float64] | None:
        if self._totals_column is None:
            return None
        return np.asarray(self.obs_column(self._totals_column), dtype=np.float64)

    def _index_node(self) -> Any:
        node = self._obs[self._obs.attrs["_index"]]
        # Nullable strings are a group of values and a mask; an index has no missing values.
        return node if hasattr(node, "shape") else node["values"]

    def _names(self, rows: slice) -> list[str]:
        return [str(name) for name in np.asarray(self._index_node()[rows])]


def write_store(path: Path, target: Path) -> None:
    """Write a store as h5ad, whole. Raises InputError."""
    from anndata.io import read_zarr

    _refuse_pickles(path)
    try:
        read_zarr(path).write_h5ad(target)
    except Exception as error:  # zarr and anndata raise many types for a damaged store
        raise _broken(error) from error


def _path_of(layer: str) -> str:
    return {"X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")


def _broken(error: Exception) -> InputError:
    return InputError(
        "broken-zarr",
        f"The store cannot be read ({type(error).__name__}: {error}).",
        hint=_WRITE_AGAIN,
        field="X",
    )


def _refuse_pickles(path: Path) -> None:
    """Refuse stores with pickled objects, which would run code when they are read. Raises InputError."""
    for name in (".zarray", "zarr.json", ".zmetadata"):
        for file in path.rglob(name):
            if '"pickle"' in file.read_text(errors="replace"):
                raise InputError(
                    "pickled-zarr",
                    f"'{file.relative_to(path)}' is stored as pickled objects.",
                    hint=_WRITE_AGAIN,
                    field=str(file.relative_to(path).parent),
                )
