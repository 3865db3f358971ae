"""CellMatrix: cells as they came in. The only shape of cells that crosses from one room to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError


@dataclass(frozen=True)
class CellMatrix:
    """B cells x genes in compressed sparse rows, in the user's own gene order.

    Attributes:
        indptr: ``[B + 1]`` int64, row boundaries.
        indices: ``[entries]`` int32, columns.
        data: ``[entries]`` float32, counts or log-normalised values.
        genes: names of the columns (symbols or Ensembl ids), one a column.
        cells: names of the rows.
        ensembl_ids: a second name of each column where the file has one ("" where unknown).
        totals: ``[B]`` counts of each cell over all genes, where the columns are only a selection of them.
        cells_in_all: of the file that these cells are a part of; None: these are all.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    genes: Sequence[str]
    cells: Sequence[str]
    ensembl_ids: Sequence[str] | None = None
    totals: NDArray[np.float64] | None = field(default=None)
    cells_in_all: int | None = None

    @property
    def num_cells(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_genes(self) -> int:
        return len(self.genes)

    def parts(self, size: int) -> Iterator[CellMatrix]:
        """The cells in order, ``size`` at a time, as views. The matrix must be valid."""
        if self.num_cells <= size:
            yield self
            return
        for start in range(0, self.num_cells, size):
            stop = min(start + size, self.num_cells)
            entries = slice(int(self.indptr[start]), int(self.indptr[stop]))
            yield replace(
                self,
                indptr=self.indptr[start : stop + 1] - self.indptr[start],
                indices=self.indices[entries],
                data=self.data[entries],
                cells=self.cells[start:stop],
                totals=None if self.totals is None else self.totals[start:stop],
                cells_in_all=self.cells_in_all or self.num_cells,
            )

    def validate(self) -> None:
        """Check structure and values; the first fault is an InputError that names field, cell and gene."""
        self._check_lengths()
        self._check_structure()
        self._check_values()

    def _check_lengths(self) -> None:
        if self.num_cells < 1:
            raise InputError("no-cells", "The matrix has 0 cells.", mend="Send at least one cell.", field="indptr")
        if self.num_genes < 1:
            raise InputError("no-genes", "The matrix has 0 genes.", mend="Name the columns in 'genes'.", field="genes")
        pairs = [
            ("data", len(self.data), "indices", len(self.indices)),
            ("indices", len(self.indices), "the last value of indptr", int(self.indptr[-1])),
            ("obs_names", len(self.cells), "cells in indptr", self.num_cells),
        ]
        if self.ensembl_ids is not None:
            pairs.append(("ensembl_ids", len(self.ensembl_ids), "genes", self.num_genes))
        if self.totals is not None:
            pairs.append(("totals", len(self.totals), "cells in indptr", self.num_cells))
        for name, length, other, expected in pairs:
            if length != expected:
                raise InputError(
                    "length-mismatch",
                    f"'{name}' has length {length}, but {other} says {expected}.",
                    mend="Make the CSR arrays agree: len(data) = len(indices) = indptr[-1], len(indptr) = cells + 1.",
                    field=name,
                )

    def _check_structure(self) -> None:
        if self.indptr[0] != 0:
            raise InputError(
                "indptr-start", "indptr does not start with 0.", mend="Start indptr with 0.", field="indptr"
            )
        falls = np.flatnonzero(np.diff(self.indptr) < 0)
        if len(falls):
            raise InputError(
                "indptr-order",
                f"indptr falls after position {falls[0]}.",
                mend="Make indptr non-decreasing.",
                field="indptr",
                cell=self.cells[falls[0]],
            )
        # Without temporaries as long as all is well: unsigned, negative ones are large.
        if not len(self.indices) or int(self.indices.view(np.uint32).max()) < self.num_genes:
            return
        outside = np.flatnonzero((self.indices < 0) | (self.indices >= self.num_genes))
        if len(outside):
            cell = self.cell_of_entry(int(outside[0]))
            raise InputError(
                "index-out-of-range",
                f"Cell '{cell}' has gene index {self.indices[outside[0]]}, but there are {self.num_genes} genes.",
                mend=f"Use indices from 0 to {self.num_genes - 1}.",
                field="indices",
                cell=cell,
            )

    def _check_values(self) -> None:
        # NaN is neither at least 0 nor below infinity.
        if not len(self.data) or (self.data.min() >= 0 and self.data.max() < np.inf):
            return
        for code, bad, word in (
            ("not-finite", ~np.isfinite(self.data), "not a finite number"),
            ("negative-value", self.data < 0, "negative"),
        ):
            at = np.flatnonzero(bad)
            if len(at):
                cell, gene = self.cell_of_entry(int(at[0])), str(self.genes[self.indices[at[0]]])
                raise InputError(
                    code,
                    f"The value of gene '{gene}' in cell '{cell}' is {word} ({self.data[at[0]]}); "
                    f"{len(at)} such values.",
                    mend="Send raw counts (or log1p-normalised values): finite and at least 0, not scaled or centred.",
                    field="data",
                    cell=cell,
                    gene=gene,
                )

    def cell_of_entry(self, entry: int) -> str:
        """Name of the cell that owns position ``entry`` of ``data``."""
        return str(self.cells[int(np.searchsorted(self.indptr, entry, side="right")) - 1])

    def row_totals(self) -> NDArray[np.float64]:
        """``[B]`` sum of each cell over all its columns, or the totals that came with it."""
        if self.totals is not None:
            return self.totals
        rows = np.repeat(np.arange(self.num_cells), np.diff(self.indptr))
        return np.bincount(rows, weights=self.data, minlength=self.num_cells).astype(np.float64, copy=False)
