"""CellMatrix: cells as they were read, before alignment. Every reader and codec produces this type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns

_NOT_FINITE = (
    "NaN usually means that a gene was not measured in some cells, as after ad.concat(join='outer'): send the batches "
    "one by one, or join='inner'."
)
_NEGATIVE = (
    "These are scaled or centred values: send raw counts or log1p-normalised values. Choose another matrix of the file "
    "with layer= (layer=raw, layer=counts)."
)


@dataclass(frozen=True)
class Origin:
    """Where a matrix was found, and what the file says about its values.

    Attributes:
        name: ``X``, ``raw`` or the name of a layer.
        why: why this matrix was read, if not because it was asked for.
        log_base: base of the logarithm as noted in ``uns["log1p"]``, or None.
        truth_values: whether the values were stored as booleans.
        totals_column: column of ``obs`` that `CellMatrix.obs_totals` is from.
    """

    name: str = "X"
    why: str = ""
    log_base: float | None = None
    truth_values: bool = False
    totals_column: str = ""


PLAIN = Origin()


@dataclass(frozen=True)
class CellMatrix:
    """B cells x genes in compressed sparse rows, in the gene order of the input.

    Attributes:
        indptr: ``[B + 1]`` int64, row boundaries.
        indices: ``[entries]`` int32, columns.
        data: ``[entries]`` float32, counts or log-normalised values.
        genes: name of each column, a symbol or an Ensembl id.
        cells: names of the rows.
        ensembl_ids: Ensembl id of each column ("" where unknown), or None if the file has none.
        totals: ``[B]`` counts of each cell over all genes, if the columns are only a selection of the genes.
        cells_in_all: number of cells in the file that these cells are a part of; None if these are all.
        columns: what the file says about the columns; None if it has only ``genes`` and ``ensembl_ids``.
        origin: where the matrix was found.
        obs_totals: ``[B]`` totals that the file has for the cells, which may be those of a selection of genes.
        num_extra: columns that are no genes, or further columns of the same gene.
        partial: whether entries of columns that are no genes were removed; they may be part of a normalised total.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    genes: Sequence[str]
    cells: Sequence[str]
    ensembl_ids: Sequence[str] | None = None
    totals: NDArray[np.float64] | None = field(default=None)
    cells_in_all: int | None = None
    columns: GeneColumns | None = None
    origin: Origin = PLAIN
    obs_totals: NDArray[np.float64] | None = None
    num_extra: int = 0
    partial: bool = False

    @property
    def gene_columns(self) -> GeneColumns:
        """What is known about the columns."""
        return self.columns or GeneColumns(self.genes, self.ensembl_ids, cells=self.cells[:200])

    @property
    def num_cells(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_gene_columns(self) -> int:
        """Different genes of the columns, known or not."""
        return self.num_genes - self.num_extra

    def select(self, rows: NDArray[np.int64]) -> CellMatrix:
        """Some cells, as a copy."""
        counts = np.diff(self.indptr)[rows]
        ends = np.concatenate([[0], np.cumsum(counts)])
        entries = np.repeat(self.indptr[rows] - ends[:-1], counts) + np.arange(ends[-1])
        return replace(
            self,
            indptr=ends.astype(np.int64),
            indices=self.indices[entries],
            data=self.data[entries],
            cells=[self.cells[row] for row in rows],
            totals=None if self.totals is None else self.totals[rows],
            obs_totals=None if self.obs_totals is None else self.obs_totals[rows],
        )

    def without(self, left_out: NDArray[np.bool_]) -> CellMatrix:
        """The matrix without the entries of some columns. The columns stay, so that positions do not change."""
        keep = ~left_out[self.indices]
        indptr = np.concatenate([[0], np.cumsum(keep)])[self.indptr]
        return replace(
            self,
            indptr=indptr,
            indices=self.indices[keep],
            data=self.data[keep],
            partial=self.partial or len(keep) > int(keep.sum()),
        )

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
                obs_totals=None if self.obs_totals is None else self.obs_totals[start:stop],
                cells_in_all=self.cells_in_all or self.num_cells,
            )

    def validate(self) -> None:
        """Check structure and values. Raises InputError for the first fault, naming the field, cell and gene."""
        self._check_lengths()
        self._check_structure()
        self._check_values()

    def _check_lengths(self) -> None:
        if self.num_cells < 1:
            raise InputError("no-cells", "The matrix has 0 cells.", hint="Send at least one cell.", field="indptr")
        if self.num_genes < 1:
            raise InputError("no-genes", "The matrix has 0 genes.", hint="Name the columns in 'genes'.", field="genes")
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
                    f"'{name}' has length {length}, but {other} requires {expected}.",
                    hint="Make the CSR arrays agree: len(data) = len(indices) = indptr[-1], len(indptr) = cells + 1.",
                    field=name,
                )

    def _check_structure(self) -> None:
        if self.indptr[0] != 0:
            raise InputError(
                "indptr-start", "indptr does not start with 0.", hint="Start indptr with 0.", field="indptr"
            )
        falls = np.flatnonzero(np.diff(self.indptr) < 0)
        if len(falls):
            raise InputError(
                "indptr-order",
                f"indptr decreases after position {falls[0]}.",
                hint="Make indptr non-decreasing.",
                field="indptr",
                cell=self.cells[falls[0]],
            )
        # Check without temporary arrays first: viewed as unsigned, a negative index is a large one.
        if not len(self.indices) or int(self.indices.view(np.uint32).max()) < self.num_genes:
            return
        outside = np.flatnonzero((self.indices < 0) | (self.indices >= self.num_genes))
        if len(outside):
            cell = self.cell_of_entry(int(outside[0]))
            raise InputError(
                "index-out-of-range",
                f"Cell '{cell}' has gene index {self.indices[outside[0]]}, but there are {self.num_genes} genes.",
                hint=f"Use indices from 0 to {self.num_genes - 1}.",
                field="indices",
                cell=cell,
            )

    def _check_values(self) -> None:
        # Both comparisons are false for NaN.
        if not len(self.data) or (self.data.min() >= 0 and self.data.max() < np.inf):
            return
        for code, bad, word, hint in (
            ("not-finite", ~np.isfinite(self.data), "not a finite number", _NOT_FINITE),
            ("negative-value", self.data < 0, "negative", _NEGATIVE),
        ):
            at = np.flatnonzero(bad)
            if len(at):
                cell, gene = self.cell_of_entry(int(at[0])), str(self.genes[self.indices[at[0]]])
                raise InputError(
                    code,
                    f"The value of gene '{gene}' in cell '{cell}' is {word} ({self.data[at[0]]}); "
                    f"{len(at)} such values.",
                    hint=hint,
                    field="data",
                    cell=cell,
                    gene=gene,
                )

    def cell_of_entry(self, entry: int) -> str:
        """Name of the cell that owns position ``entry`` of ``data``."""
        return str(self.cells[int(np.searchsorted(self.indptr, entry, side="right")) - 1])

    def row_totals(self) -> NDArray[np.float64]:
        """``[B]`` total of each cell: the given totals, or else the sum over its columns."""
        if self.totals is not None:
            return self.totals
        rows = np.repeat(np.arange(self.num_cells), np.diff(self.indptr))
        return np.bincount(rows, weights=self.data, minlength=self.num_cells).astype(np.float64, copy=False)
