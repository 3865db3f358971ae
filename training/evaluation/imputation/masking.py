"""What imputation is scored on: counts that are known and held back from the methods (paper B.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.normalize import SCALE, row_sums

SHARE = 0.1
# Scale of the exponential law that draws the entries: low counts are the ones that get lost.
COUNT_SCALE = 20.0
TRAIN_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Masked:
    """Cells with some positive entries set to zero.

    Attributes:
        matrix: B cells without the masked counts; their totals are without them as well.
        cell, gene: ``[M]`` row and column of each masked entry.
        truth: ``[M]`` log1p CP10K of the masked entries, by the cell's total before masking.
    """

    matrix: CellMatrix
    cell: NDArray[np.int64]
    gene: NDArray[np.int64]
    truth: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Thinned:
    """Every count given to one of two halves at random.

    Attributes:
        matrix: B cells with nine tenths of the counts. held_out: ``[B, genes]`` the other counts.
    """

    matrix: CellMatrix
    held_out: sparse.csr_matrix


def require_counts(matrix: CellMatrix, name: str) -> None:
    """Raise InputError unless every value is a whole number."""
    if (matrix.data != np.rint(matrix.data)).any():
        entry = int(np.flatnonzero(matrix.data != np.rint(matrix.data))[0])
        cell, gene = matrix.cell_of_entry(entry), str(matrix.genes[matrix.indices[entry]])
        raise InputError(
            "not-counts",
            f"{name}: gene '{gene}' in cell '{cell}' is {matrix.data[entry]:g}, and masking needs raw counts.",
            mend="Put raw counts in X, or name the layer that holds them with --layer.",
            field="data",
            cell=cell,
            gene=gene,
        )


def mask_positive(matrix: CellMatrix, *, share: float = SHARE, seed: int = 0) -> Masked:
    """Set ``share`` of each cell's positive entries to 0, drawn with weight ``expon.pdf(count, 0, 20)``.

    Args:
        matrix: raw counts, validated. share: of a cell's positive entries, rounded down.

    Raises:
        InputError: no cell has enough positive entries for one to be masked.
    """
    rng = np.random.default_rng([seed, 0x6D61736B])
    table = _table(matrix)
    lengths = np.diff(table.indptr)
    cell = np.repeat(np.arange(matrix.num_cells), lengths)
    # The largest of log weight + Gumbel noise are a weighted draw without replacement (Efraimidis and Spirakis 2006).
    key = -table.data.astype(np.float64) / COUNT_SCALE + rng.gumbel(size=len(table.data))
    order = np.lexsort((-key, cell))
    rank = np.arange(len(order)) - np.repeat(table.indptr[:-1], lengths)
    chosen = np.sort(order[rank < np.repeat(np.floor(share * lengths), lengths)])
    if not len(chosen):
        raise InputError(
            "too-few-counts",
            f"No cell has the {int(np.ceil(1 / share))} positive entries that masking {share:.0%} of them needs.",
            mend="Evaluate on deeper cells, with all genes.",
        )
    totals = _totals(matrix)
    counts = table.data[chosen].astype(np.float64)
    lost = np.bincount(cell[chosen], weights=counts, minlength=matrix.num_cells)
    rest = table.copy()
    rest.data[chosen] = 0
    rest.eliminate_zeros()
    truth = np.log1p(SCALE * counts / totals[cell[chosen]])
    return Masked(
        _with_counts(matrix, rest, totals - lost), cell[chosen], table.indices[chosen].astype(np.int64), truth
    )


def thin(matrix: CellMatrix, *, keep: float = TRAIN_SHARE, seed: int = 0) -> Thinned:
    """Give each count to the methods with probability ``keep``, to the test else: given the cell's expression, the
    noise of the two is independent (Poisson thinning).

    Raises:
        InputError: a cell that keeps no count.
    """
    rng = np.random.default_rng([seed, 0x7468696E])
    table = _table(matrix)
    kept = table.copy()
    kept.data = rng.binomial(np.rint(table.data).astype(np.int64), keep).astype(np.float32)
    held_out = table.copy()
    held_out.data = table.data - kept.data
    lost = np.asarray(held_out.sum(axis=1), dtype=np.float64).ravel()
    for part in (kept, held_out):
        part.eliminate_zeros()
    empty = np.flatnonzero(np.diff(kept.indptr) == 0)
    if len(empty):
        raise InputError(
            "too-few-counts",
            f"Cell '{matrix.cells[empty[0]]}' has no count left after thinning.",
            mend="Leave out cells with fewer than 100 counts.",
            cell=str(matrix.cells[empty[0]]),
        )
    return Thinned(_with_counts(matrix, kept, _totals(matrix) - lost), held_out)


def select_genes(matrix: CellMatrix, columns: NDArray[np.int64]) -> CellMatrix:
    """The same cells with some columns only; each cell keeps its total over all genes."""
    part = _table(matrix)[:, columns]
    part.sort_indices()
    ids = matrix.ensembl_ids
    return CellMatrix(
        part.indptr.astype(np.int64),
        part.indices.astype(np.int32),
        part.data,
        [matrix.genes[i] for i in columns],
        matrix.cells,
        None if ids is None else [ids[i] for i in columns],
        _totals(matrix),
    )


def _table(matrix: CellMatrix) -> sparse.csr_matrix:
    shape = (matrix.num_cells, matrix.num_genes)
    table = sparse.csr_matrix((matrix.data.copy(), matrix.indices, matrix.indptr), shape=shape)
    table.sum_duplicates()
    table.eliminate_zeros()
    return table


def _totals(matrix: CellMatrix) -> NDArray[np.float64]:
    if matrix.totals is not None:
        return np.asarray(matrix.totals, dtype=np.float64)
    return row_sums(matrix.data, matrix.indices, matrix.indptr, matrix.num_genes)


def _with_counts(matrix: CellMatrix, table: sparse.csr_matrix, totals: NDArray[np.float64]) -> CellMatrix:
    return replace(
        matrix,
        indptr=table.indptr.astype(np.int64),
        indices=table.indices.astype(np.int32),
        data=table.data.astype(np.float32),
        totals=totals,
    )
