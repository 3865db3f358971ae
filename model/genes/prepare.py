"""From input cells to model rows: validate, detect the kind of values, align genes, sum duplicates, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.normalize import SCALE, Declared, InputReport, detect_input, to_linear
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.vocabulary import Coverage, Vocabulary

# Cells prepared at once: about half a million values, which fit a processor's cache. The first chunk decides whether
# values are counts or logs, so every reader must use this size: service and command line have to agree.
CHUNK_CELLS = 512
_FEW_ENTRIES = 8192


@dataclass(frozen=True, eq=False)
class Prepared:
    """Cells ready for a session, with a report of how they were read.

    Attributes:
        rows: B cells in the model's gene order.
        cells: names of the cells.
        coverage: which genes the model knows.
        input: whether the values were counts or logs, and why.
        totals: ``[B]`` counts of each cell over all its genes; 10,000 if the values were logs.
    """

    rows: Rows
    cells: list[str]
    coverage: Coverage
    input: InputReport
    totals: NDArray[np.float64]

    def slice(self, start: int, stop: int) -> Prepared:
        """Cells ``start`` to ``stop``, as views."""
        rows, totals = self.rows.slice(start, stop), self.totals[start:stop]
        return Prepared(rows, self.cells[start:stop], self.coverage, self.input, totals)


class _Table(NamedTuple):
    """Compressed sparse rows."""

    indptr: NDArray[np.integer]
    indices: NDArray[np.int32]
    data: NDArray[np.floating]


class Preparer:
    """Prepares the cells of one file chunk by chunk. Genes are aligned once; the first chunk sets the kind of values.

    Args:
        vocabulary: the model's genes.
        genes, ensembl_ids: names of the file's columns.
        declared: what the user says the values are.
        report: classification of the file's first chunk, if this preparer starts at a later one.

    The constructor raises InputError for unusable genes, ``prepare`` for faulty values.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        genes: Sequence[str],
        ensembl_ids: Sequence[str] | None = None,
        declared: Declared = "auto",
        report: InputReport | None = None,
    ) -> None:
        self._num_genes = len(vocabulary)
        self._alignment = vocabulary.align(genes, ensembl_ids)
        target, coverage = self._alignment.target, self._alignment.coverage
        self._columns = np.where(target < 0, np.int32(self._num_genes), target)  # unknown: one past the last
        self._has_duplicates = coverage.genes_of_model < coverage.genes_matched
        self._declared: Declared = declared
        self._report = report

    @property
    def coverage(self) -> Coverage:
        return self._alignment.coverage

    @property
    def target(self) -> NDArray[np.int32]:
        """``[genes_in]`` vocabulary position of each column, -1 where unknown."""
        return self._alignment.target

    @property
    def measured(self) -> NDArray[np.bool_]:
        """``[G]`` bool: whether the file measured each vocabulary gene."""
        return self._alignment.gene_set.measured

    def prepare(self, matrix: CellMatrix) -> Prepared:
        """Normalise a chunk of the file. Its genes must be those of the constructor. Raises InputError."""
        matrix.validate()
        if self._report is None:
            self._report = detect_input(matrix, self._declared)
        elif self._declared != "auto":
            detect_input(matrix, self._declared)
        else:
            self._check_same_kind(matrix, self._report)
        linear, totals = to_linear(matrix, self._report)
        # Counts are already linear; float32 needs half the memory.
        rows = self._to_rows(matrix, matrix.data if self._report.detected == "counts" else linear, totals)
        if self._report.detected == "log":
            totals = np.full(matrix.num_cells, SCALE)
        return Prepared(rows, [str(cell) for cell in matrix.cells], self.coverage, self._report, totals)

    def _check_same_kind(self, matrix: CellMatrix, report: InputReport) -> None:
        if report.expected:
            return
        try:
            detect_input(matrix, report.detected)
        except InputError as error:
            first = "whole numbers" if report.detected == "counts" else "log values"
            raise InputError(
                "mixed-input",
                f"The first cells of the file hold {first}, but later cells do not. {error.detail}",
                hint="Send raw counts for all cells, or declare input=counts or input=log.",
                field="data",
                cell=error.cell,
                gene=error.gene,
            ) from error

    def _to_rows(self, matrix: CellMatrix, linear: NDArray[np.floating], totals: NDArray[np.float64]) -> Rows:
        table = self._aligned(matrix, linear)
        lengths = np.diff(table.indptr)
        unknown = np.flatnonzero(lengths == 0)
        if len(unknown):
            names = ", ".join(f"'{matrix.cells[i]}'" for i in unknown[:5])
            raise InputError(
                "no-known-gene-in-cell",
                f"{len(unknown)} cell(s) have no counts for any gene that the model knows: {names}.",
                hint="Remove these cells, or name the genes by HGNC symbol or Ensembl id.",
                field="data",
                cell=str(matrix.cells[unknown[0]]),
            )
        value = np.repeat(SCALE / totals, lengths)
        value *= table.data
        return Rows(
            table.indptr.astype(np.int64),
            table.indices.astype(np.int32, copy=False),
            np.log1p(value, out=value).astype(np.float32),
            (self._alignment.gene_set,),
            np.zeros(matrix.num_cells, dtype=np.int32),
        )

    def _aligned(self, matrix: CellMatrix, linear: NDArray[np.floating]) -> _Table:
        """``[B, G]`` with sorted genes and summed duplicates, so that the input's column order does not matter."""
        indptr, indices = matrix.indptr, self._columns[matrix.indices]
        if not linear.all():
            stored = linear != 0
            indptr = np.concatenate([[0], np.cumsum(stored)])[indptr]
            indices, linear = indices[stored], linear[stored]
        if len(indices) <= _FEW_ENTRIES and not self._has_duplicates:
            return self._sorted(indptr, indices, linear)
        # Transposing twice sorts the entries without comparisons. After the first transpose the unknown genes are the
        # last column, which is dropped.
        num_cells, num_genes = matrix.num_cells, self._num_genes
        by_gene = sparse.csr_matrix((linear, indices, indptr), shape=(num_cells, num_genes + 1)).tocsc()
        known = by_gene.indptr[num_genes]
        parts = (by_gene.data[:known], by_gene.indices[:known], by_gene.indptr[:-1])
        by_cell = sparse.csr_matrix(parts, shape=(num_genes, num_cells)).tocsc()  # its columns are the cells
        if not self._has_duplicates:
            return _Table(by_cell.indptr, by_cell.indices, by_cell.data)
        table = sparse.csr_matrix(
            (by_cell.data.astype(np.float64), by_cell.indices, by_cell.indptr), shape=(num_cells, num_genes)
        )
        table.has_sorted_indices = True
        table.sum_duplicates()
        return _Table(table.indptr, table.indices, table.data)

    def _sorted(self, indptr: NDArray[np.int64], indices: NDArray[np.int32], linear: NDArray[np.floating]) -> _Table:
        # For a few cells a sort is faster than building sparse matrices.
        known = indices < self._num_genes
        cell = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[known]
        order = np.argsort(cell * self._num_genes + indices[known], kind="stable")
        ends = np.cumsum(np.bincount(cell, minlength=len(indptr) - 1))
        return _Table(np.concatenate([[0], ends]), indices[known][order], linear[known][order])


def prepare(matrix: CellMatrix, vocabulary: Vocabulary, declared: Declared = "auto") -> Prepared:
    """Prepare a whole matrix at once. Raises InputError."""
    matrix.validate()
    return Preparer(vocabulary, matrix.genes, matrix.ensembl_ids, declared).prepare(matrix)
