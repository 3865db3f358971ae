"""From input cells to model rows: validate, detect the kind of values, align genes, sum duplicates, normalise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matching.alignment import Alignment, Coverage
from scpalm.model.genes.matching.blocks import refuse_outweighed
from scpalm.model.genes.matching.ubiquitous import MISNAMED, names_fit
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.declared import AUTO, Declaration
from scpalm.model.genes.values.linear import SCALE, to_linear
from scpalm.model.genes.values.normalize import check_chunk, detect_input
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.genes.warn import warnings_of

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

    def select(self, positions: NDArray[np.int64]) -> Prepared:
        """The cells at ``positions``, at least one, as a copy."""
        rows = Rows.concat([self.rows.slice(at, at + 1) for at in map(int, positions)])
        cells = [self.cells[at] for at in positions]
        return Prepared(rows, cells, self.coverage, self.input, self.totals[positions])


class _Table(NamedTuple):
    """Compressed sparse rows."""

    indptr: NDArray[np.integer]
    indices: NDArray[np.int32]
    data: NDArray[np.floating]


class Preparer:
    """Prepares the cells of one file chunk by chunk. Genes are aligned once; the first chunk sets the kind of values.

    Args:
        vocabulary: the model's genes.
        columns: what the file says about its columns, or their names.
        declared: what the user says the values are.
        report: classification of the file's first chunk, if this preparer starts at a later one.
        align: matches the columns; `scpalm.model.genes.matching.align.align`, or a cache of it.

    The constructor raises InputError for unusable genes, ``prepare`` for faulty values.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        columns: GeneColumns | Sequence[str],
        declared: Declaration = AUTO,
        report: InputReport | None = None,
        align: Callable[[Vocabulary, GeneColumns], Alignment] = align,
    ) -> None:
        self._vocabulary = vocabulary
        self._num_genes = len(vocabulary)
        self._alignment = align(vocabulary, columns if isinstance(columns, GeneColumns) else GeneColumns(columns))
        target, coverage = self._alignment.target, self._alignment.coverage
        of_file = columns.of_file if isinstance(columns, GeneColumns) else None
        self._file_target = target if of_file is None else align(vocabulary, of_file).target
        self._columns = np.where(target < 0, np.int32(self._num_genes), target)  # unknown: one past the last
        self._has_duplicates = coverage.genes_of_model < coverage.genes_matched
        self._declared = declared
        self._report = report

    @property
    def coverage(self) -> Coverage:
        return self._alignment.coverage

    @property
    def target(self) -> NDArray[np.int32]:
        """``[genes_in]`` vocabulary position of each column, -1 where unknown."""
        return self._alignment.target

    @property
    def file_target(self) -> NDArray[np.int32]:
        """``[num_vars]`` the same for the columns of the file, which are fewer than those of ``raw``."""
        return self._file_target

    @property
    def measured(self) -> NDArray[np.bool_]:
        """``[G]`` bool: whether the file measured each vocabulary gene."""
        return self._alignment.gene_set.measured

    def prepare(self, matrix: CellMatrix) -> Prepared:
        """Normalise a chunk of the file. Its genes must be those of the constructor. Raises InputError."""
        matrix.validate()
        if self.coverage.left_out:
            matrix = matrix.without(self._alignment.left_out)
        matrix = replace(matrix, num_extra=self.coverage.num_extra)
        first = self._report is None
        if self._report is None:
            self._report = detect_input(matrix, self._declared)
            if self._alignment.repeated and self._report.detected == "counts":
                refuse_outweighed(matrix, self._alignment.target, self._alignment.repeated)
        check_chunk(matrix, self._report, self._declared)
        linear, totals = to_linear(matrix, self._report)
        if first:
            self._report = self._with_warnings(matrix, linear, totals)
        # Counts are already linear; float32 needs half the memory.
        rows = self._to_rows(matrix, linear if self._report.base else matrix.data, totals)
        if first and not names_fit(self._vocabulary, self.measured, rows.indptr, rows.gene_index):
            self._report = replace(self._report, warnings=(MISNAMED, *self._report.warnings))
        if self._report.detected != "counts":
            totals = np.full(matrix.num_cells, SCALE)
        return Prepared(rows, [str(cell) for cell in matrix.cells], self.coverage, self._report, totals)

    def _with_warnings(
        self, matrix: CellMatrix, linear: NDArray[np.float64], totals: NDArray[np.float64]
    ) -> InputReport:
        assert self._report is not None
        share = linear / np.repeat(totals, np.diff(matrix.indptr))
        known = float(share[self._columns[matrix.indices] < self._num_genes].sum() / max(share.sum(), 1e-300))
        report = replace(self._report, counts_matched=round(known, 4))
        return replace(report, warnings=(*report.warnings, *warnings_of(self.coverage, report, totals)))

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


def prepare(matrix: CellMatrix, vocabulary: Vocabulary, declared: Declaration = AUTO) -> Prepared:
    """Prepare a whole matrix at once. Raises InputError."""
    matrix.validate()
    return Preparer(vocabulary, matrix.gene_columns, declared).prepare(matrix)
