"""Hold counts back from the imputation methods, to score what they impute (paper B.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.linear import SCALE
from scpalm.training.evaluation.common.count_table import cell_totals, count_table
from scpalm.training.evaluation.common.thinning import with_counts

SHARE = 0.1
# Scale of the exponential weights that draw the entries: low counts are the ones that sequencing loses.
COUNT_SCALE = 20.0


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
    return Masked(with_counts(matrix, rest, totals - lost), cell[chosen], table.indices[chosen].astype(np.int64), truth)
