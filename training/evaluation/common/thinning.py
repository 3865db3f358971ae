"""Count tables with fewer counts, for evaluations that hold counts back or add noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.count_table import cell_totals, count_table

TRAIN_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class Thinned:
    """Counts split at random into two parts.

    Attributes:
        matrix: B cells with nine tenths of the counts. held_out: ``[B, genes]`` the remaining counts.
    """

    matrix: CellMatrix
    held_out: sparse.csr_matrix


def has_counts(matrix: CellMatrix) -> bool:
    """Whether every value is a whole number."""
    return bool((matrix.data == np.rint(matrix.data)).all())


def require_counts(matrix: CellMatrix, name: str) -> None:
    """Raise InputError unless every value is a whole number."""
    if not has_counts(matrix):
        entry = int(np.flatnonzero(matrix.data != np.rint(matrix.data))[0])
        cell, gene = matrix.cell_of_entry(entry), str(matrix.genes[matrix.indices[entry]])
        raise InputError(
            "not-counts",
            f"{name}: gene '{gene}' in cell '{cell}' is {matrix.data[entry]:g}, but raw counts are needed.",
            hint="Put raw counts in X, or name the layer that holds them with --layer.",
            field="data",
            cell=cell,
            gene=gene,
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
    return Thinned(with_counts(matrix, kept, cell_totals(matrix) - lost), held_out)


def with_counts(matrix: CellMatrix, table: sparse.csr_matrix, totals: NDArray[np.float64]) -> CellMatrix:
    """The same cells and genes with the counts of ``table``; ``totals [cells]`` over all genes."""
    return replace(
        matrix,
        indptr=table.indptr.astype(np.int64),
        indices=table.indices.astype(np.int32),
        data=table.data.astype(np.float32),
        totals=totals,
    )
