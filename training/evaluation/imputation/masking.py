"""Hold counts back from the imputation methods, to score what they impute (paper B.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.linear import SCALE
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.count_table import cell_totals, count_table

SHARE = 0.1
# Scale of the exponential weights that draw the entries: low counts are the ones that sequencing loses.
COUNT_SCALE = 20.0
TRAIN_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Masked:
    """Cells with some positive entries set to zero.

    Attributes:
        matrix: B cells without the masked counts; their totals exclude them too.
        cell, gene: ``[M]`` row and column of each masked entry.
        truth: ``[M]`` log1p CP10K of the masked entries, by the cell's total before masking.
    """

    matrix: CellMatrix
    cell: NDArray[np.int64]
    gene: NDArray[np.int64]
    truth: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Thinned:
    """Counts split at random into two parts.

    Attributes:
        matrix: B cells with nine tenths of the counts. held_out: ``[B, genes]`` the remaining counts.
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
            hint="Put raw counts in X, or name the layer that holds them with --layer.",
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
    table = count_table(matrix)
    lengths = np.diff(table.indptr)
    cell = np.repeat(np.arange(matrix.num_cells), lengths)
    # The largest sums of log weight and Gumbel noise are a weighted draw without replacement
    # (Efraimidis and Spirakis 2006).
    key = -table.data.astype(np.float64) / COUNT_SCALE + rng.gumbel(size=len(table.data))
    order = np.lexsort((-key, cell))
    rank = np.arange(len(order)) - np.repeat(table.indptr[:-1], lengths)
    chosen = np.sort(order[rank < np.repeat(np.floor(share * lengths), lengths)])
    if not len(chosen):
        raise InputError(
            "too-few-counts",
            f"No cell has the {int(np.ceil(1 / share))} positive entries that masking {share:.0%} of them needs.",
            hint="Evaluate on deeper cells, with all genes.",
        )
    totals = cell_totals(matrix)
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
    """Give each count to the methods with probability ``keep``, and to the test otherwise (Poisson thinning).

    Given the cell's expression, the noise of the two parts is independent.

    Raises:
        InputError: a cell keeps no count.
    """
    rng = np.random.default_rng([seed, 0x7468696E])
    table = count_table(matrix)
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
            hint="Leave out cells with fewer than 100 counts.",
            cell=str(matrix.cells[empty[0]]),
        )
    return Thinned(_with_counts(matrix, kept, cell_totals(matrix) - lost), held_out)


def _with_counts(matrix: CellMatrix, table: sparse.csr_matrix, totals: NDArray[np.float64]) -> CellMatrix:
    return replace(
        matrix,
        indptr=table.indptr.astype(np.int64),
        indices=table.indices.astype(np.int32),
        data=table.data.astype(np.float32),
        totals=totals,
    )
