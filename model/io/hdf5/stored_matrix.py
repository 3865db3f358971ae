"""A matrix inside an h5ad file (CSR, CSC or dense), read as blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matrix import PLAIN, CellMatrix, Origin
from scpalm.model.io.hdf5.access import attribute, checked, find, guarded, refuse_over

_WRITE_AGAIN = "Open the file with anndata.read_h5ad and write it again with write_h5ad."
_DENSE_BYTES = 64 * 2**20  # bytes of a dense matrix in memory at once
_CSC_ENTRIES = 16 * 2**20  # entries of a CSC matrix collected per pass over the file
_CSC_BLOCK = 4 * 2**20  # entries of a CSC matrix read at once

_Csr: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]  # indptr, indices, data


@dataclass(frozen=True)
class Axes:
    """What belongs to the rows and columns of a stored matrix.

    Attributes:
        cells: names of the rows to read.
        columns: names of the columns.
        cells_in_all: number of cells in the file.
        origin: where the matrix was found.
        totals: total count of each row over all genes, if the columns are a selection of the genes.
        obs_totals: totals that the file has, which may be those of a selection.
    """

    cells: Sequence[str]
    columns: GeneColumns
    cells_in_all: int
    origin: Origin = PLAIN
    totals: NDArray[np.float64] | None = None
    obs_totals: NDArray[np.float64] | None = None

    def part(
        self, start: int, indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[np.float32]
    ) -> CellMatrix:
        """The given rows as a `CellMatrix` with names; ``start``: position in ``cells`` of the first row."""
        rows = slice(start, start + len(indptr) - 1)
        return CellMatrix(
            indptr,
            indices,
            data,
            self.columns.names,
            self.cells[rows],
            self.columns.ensembl_ids,
            totals=None if self.totals is None else self.totals[rows],
            cells_in_all=self.cells_in_all,
            columns=self.columns,
            origin=self.origin,
            obs_totals=None if self.obs_totals is None else self.obs_totals[rows],
        )


class StoredMatrix:
    """A matrix of a file, opened for reading.

    The constructor raises InputError for a wrong format and OverLimitError for its declared size; reading raises
    InputError for damaged blocks.
    """

    def __init__(self, node: h5py.Group | h5py.Dataset, name: str, max_bytes: int | None = None) -> None:
        self.name = name
        self._node = node
        if isinstance(node, h5py.Dataset):
            self._format = "dense"
            dataset = checked(node, name, ndim=2, max_bytes=max_bytes)
            self._refuse_kind(dataset, "biuf", name)
            self.shape = (int(dataset.shape[0]), int(dataset.shape[1]))
            return
        encoding = attribute(node, "encoding-type") or attribute(node, "h5sparse_format") or ""
        self._format = encoding.removesuffix("_matrix")
        if self._format not in ("csr", "csc"):
            raise InputError(
                "unknown-encoding",
                f"'{name}' is stored as '{encoding[:50]}', not as a csr, csc or dense matrix.",
                hint=_WRITE_AGAIN,
                field=name,
            )
        self.shape = self._declared_shape(node)
        self._data = checked(find(node, "data"), f"{name}/data", max_bytes=max_bytes)
        self._indices = checked(find(node, "indices"), f"{name}/indices", max_bytes=max_bytes)
        self._indptr = checked(find(node, "indptr"), f"{name}/indptr", max_bytes=max_bytes)
        self._check_parts(max_bytes)

    def _declared_shape(self, node: h5py.Group) -> tuple[int, int]:
        with guarded(f"The shape of '{self.name}'"):
            value = np.asarray(node.attrs.get("shape", node.attrs.get("h5sparse_shape", ())))
            # R writes whole numbers as doubles.
            whole = value.dtype.kind in "iu" or (value.dtype.kind == "f" and bool((value == np.rint(value)).all()))
            if value.shape != (2,) or not whole or value.min() < 0 or value.max() > 2**62:
                raise InputError(
                    "wrong-shape", f"'{self.name}' has no valid shape.", hint=_WRITE_AGAIN, field=self.name
                )
            return int(value[0]), int(value[1])

    def _refuse_kind(self, dataset: h5py.Dataset, kinds: str, what: str) -> None:
        with guarded(f"'{what}'"):
            kind = dataset.dtype.kind
        if kind not in kinds:
            raise InputError(
                "wrong-type",
                f"'{what}' holds {dataset.dtype} values instead of {'numbers' if 'f' in kinds else 'whole numbers'}.",
                hint="Store counts as an integer or float matrix.",
                field=what,
            )

    def _check_parts(self, max_bytes: int | None) -> None:
        for dataset, part, kinds in (
            (self._data, "data", "biuf"),
            (self._indices, "indices", "iu"),
            (self._indptr, "indptr", "iu"),
        ):
            self._refuse_kind(dataset, kinds, f"{self.name}/{part}")
        major = self.shape[0] if self._format == "csr" else self.shape[1]
        entries = len(self._data)
        refuse_over(
            sum(d.size * d.dtype.itemsize for d in (self._data, self._indices, self._indptr)), max_bytes, self.name
        )
        for part, length, expected in (
            ("indptr", len(self._indptr), major + 1),
            ("indices", len(self._indices), entries),
        ):
            if length != expected:
                raise InputError(
                    "length-mismatch",
                    f"'{self.name}/{part}' has length {length} instead of {expected}.",
                    hint=_WRITE_AGAIN,
                    field=f"{self.name}/{part}",
                )

    @property
    def truth_values(self) -> bool:
        """Whether the values are stored as booleans."""
        values = self._node if isinstance(self._node, h5py.Dataset) else self._data
        with guarded(f"'{self.name}'"):
            return bool(values.dtype.kind == "b")

    def sample(self, most: int) -> NDArray[np.generic]:
        """Up to ``most`` stored values from the beginning."""
        with guarded(f"'{self.name}'"):
            if isinstance(self._node, h5py.Dataset):
                rows = max(1, most // max(1, self.shape[1]))
                return np.asarray(self._node[:rows]).ravel()
            return np.asarray(self._data[:most])

    def blocks(self, size: int, axes: Axes) -> Iterator[CellMatrix]:
        """All rows in order, ``size`` at a time. Raises InputError."""
        if self._format == "dense":
            return (axes.part(start, *block) for start, block in self._dense_blocks(size))
        if self._format == "csr":
            return self._csr_blocks(size, axes)
        return self._csc_blocks(size, axes)

    def block(self, start: int, stop: int, axes: Axes) -> CellMatrix:
        """Rows ``start`` to ``stop``, named by ``axes``. Raises InputError (``by-columns``) for CSC."""
        if self._format == "dense":
            return axes.part(0, *self._dense_block(start, stop))
        if self._format == "csc":
            raise InputError(
                "by-columns",
                f"'{self.name}' is stored by columns (csc): reading a few rows takes a pass over the whole file.",
                hint="Convert it once with anndata: adata.X = adata.X.tocsr().",
                field=self.name,
            )
        with guarded(f"'{self.name}/indptr'"):
            bounds = self._indptr[start : stop + 1].astype(np.int64)
        if (np.diff(bounds) < 0).any() or bounds[0] < 0 or bounds[-1] > len(self._data):
            raise self._pointer_fault()
        return axes.part(0, *self._csr_block(bounds, axes.cells))

    def _row_pointers(self) -> NDArray[np.int64]:
        with guarded(f"'{self.name}/indptr'"):
            indptr = self._indptr[:].astype(np.int64)
        if indptr[0] != 0 or indptr[-1] != len(self._data) or (np.diff(indptr) < 0).any():
            raise self._pointer_fault()
        return indptr

    def _pointer_fault(self) -> InputError:
        return InputError(
            "indptr-order",
            f"'{self.name}/indptr' does not increase from 0 to the number of entries ({len(self._data)}).",
            hint=_WRITE_AGAIN,
            field=f"{self.name}/indptr",
        )

    def _read(self, start: int, stop: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        with guarded(f"'{self.name}'"), np.errstate(over="ignore"):
            return self._indices[start:stop], self._data[start:stop].astype(np.float32, copy=False)

    def _index_fault(self, index: int, limit: int, cell: str | None) -> InputError:
        where = f"Cell '{cell}'" if cell is not None else f"'{self.name}/indices'"
        axis = "genes" if self._format == "csr" else "cells"
        return InputError(
            "index-out-of-range",
            f"{where} has index {index}, but there are {limit} {axis}.",
            hint=f"Indices must be between 0 and {limit - 1}. {_WRITE_AGAIN}",
            field=f"{self.name}/indices",
            cell=cell,
        )

    def _csr_blocks(self, size: int, axes: Axes) -> Iterator[CellMatrix]:
        indptr = self._row_pointers()
        for start in range(0, self.shape[0], size):
            stop = min(start + size, self.shape[0])
            yield axes.part(start, *self._csr_block(indptr[start : stop + 1], axes.cells[start:stop]))

    def _csr_block(self, bounds: NDArray[np.int64], cells: Sequence[str]) -> _Csr:
        indices, data = self._read(int(bounds[0]), int(bounds[-1]))
        # Compare in the file's integer type: after a cast to int32 a large index could look valid.
        bad = np.flatnonzero((indices < 0) | (indices >= self.shape[1]))
        if len(bad):
            row = int(np.searchsorted(bounds - bounds[0], bad[0], side="right")) - 1
            raise self._index_fault(int(indices[bad[0]]), self.shape[1], cells[row])
        return bounds - bounds[0], indices.astype(np.int32, copy=False), data

    def _dense_blocks(self, size: int) -> Iterator[tuple[int, _Csr]]:
        for start in range(0, self.shape[0], size):
            yield start, self._dense_block(start, min(start + size, self.shape[0]))

    def _dense_block(self, start: int, stop: int) -> _Csr:
        step = max(1, _DENSE_BYTES // max(1, self.shape[1] * self._node.dtype.itemsize))
        counts, columns, values = [np.zeros(1, np.int64)], [], []
        for first in range(start, stop, step):
            with guarded(f"'{self.name}'"), np.errstate(over="ignore"):
                block = np.asarray(self._node[first : min(first + step, stop)])
                row, column = np.nonzero(block)  # keeps NaN, so that validation finds and names it
                counts.append(np.bincount(row, minlength=len(block)))
                columns.append(column.astype(np.int32))
                values.append(block[row, column].astype(np.float32))
        return np.cumsum(np.concatenate(counts)), np.concatenate(columns), np.concatenate(values)

    def _csc_blocks(self, size: int, axes: Axes) -> Iterator[CellMatrix]:
        indptr = self._row_pointers()
        lengths = np.zeros(self.shape[0], dtype=np.int64)
        for rows, _, _ in self._csc_entries(indptr):
            lengths += np.bincount(rows, minlength=self.shape[0])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        start = 0
        while start < self.shape[0]:
            # As many whole blocks as fit into one pass, but at least one.
            fits = int(np.searchsorted(ends, ends[start] + _CSC_ENTRIES, side="right")) - 1
            stop = min(self.shape[0], max(start + size, start + (fits - start) // size * size))
            for first, block in self._csc_pass(indptr, (start, stop), size, ends):
                yield axes.part(first, *block)
            start = stop

    def _csc_entries(
        self, indptr: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]]:
        for first in range(0, len(self._data), _CSC_BLOCK):
            rows, data = self._read(first, first + _CSC_BLOCK)
            bad = np.flatnonzero((rows < 0) | (rows >= self.shape[0]))
            if len(bad):
                raise self._index_fault(int(rows[bad[0]]), self.shape[0], None)
            entry = np.arange(first, first + len(data))
            columns = np.searchsorted(indptr, entry, side="right") - 1
            yield rows.astype(np.int32), columns.astype(np.int32), data

    def _csc_pass(
        self, indptr: NDArray[np.int64], bounds: tuple[int, int], size: int, ends: NDArray[np.int64]
    ) -> Iterator[tuple[int, _Csr]]:
        start, stop = bounds
        parts = []
        for rows, columns, data in self._csc_entries(indptr):
            inside = (rows >= start) & (rows < stop)
            parts.append((rows[inside], columns[inside], data[inside]))
        rows, columns, data = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else _NO_ENTRIES
        order = np.argsort(rows, kind="stable")
        columns, data = columns[order], data[order]
        for first in range(start, stop, size):
            last = min(first + size, stop)
            entries = slice(int(ends[first] - ends[start]), int(ends[last] - ends[start]))
            yield first, (ends[first : last + 1] - ends[first], columns[entries], data[entries])


_NO_ENTRIES = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
