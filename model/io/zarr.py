"""AnnData stores in zarr, read as a stream of cells like h5ad files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.names import check_length, name_genes
from scpalm.model.io.frame_table import FrameTable, numbers_of

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
            chosen = {None: "X", "X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")
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
        names = name_genes(FrameTable(var), where, self._shape[1])
        self.genes, self.ensembl_ids = names.genes, names.ensembl_ids
        self._totals_column = totals_column

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

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        """A column of ``obs`` ``[B]``, or None if there is none. Strings are "" where missing."""
        from anndata.io import read_elem

        if name not in self._obs:
            return None
        column = pd.Series(read_elem(self._obs[name]))
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object or str(column.dtype) == "str":
            column = column.astype(object).where(column.notna(), "")
        return np.asarray(column)

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
            self.genes,
            self._names(rows),
            self.ensembl_ids,
            None if self._totals is None else self._totals[rows],
            cells_in_all=self.num_cells,
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
