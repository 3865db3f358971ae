"""What the values of cells look like, apart from steps: whole, nearly whole, constant in sum, binary, ranked, dense."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.genes.values.evidence import decimals_of, sampled_rows
from scpalm.model.genes.values.linear import row_sums_of
from scpalm.model.genes.values.refusals import unusable

_MANY = 200  # values that are all the same by no accident
_SOME = 60  # values of a cell that show a distribution
_MANY_GENES, _SOME_GENES = 500, 100
_SAMPLE, _FEW_CELLS = 32, 3
_EVEN = 0.3
_TIES = 0.45
_FLAT = 0.3  # share of a cell's values above half of its largest; counts have a few percent there
_ROUND = (1.0, 1e2, 1e3, 1e4, 1e5, 1e6)


def is_whole(values: NDArray[np.float32]) -> bool:
    """Whether all values are whole numbers."""
    return not (values != np.rint(values)).any()


def mostly_whole(matrix: CellMatrix) -> bool:
    """Whether most values are whole, also of those above 1, and there are enough to tell."""
    values = matrix.data[matrix.data > 0]
    whole = values == np.rint(values)
    large = values > 1
    return (
        len(values) >= 20
        and float(whole.mean()) >= 0.6
        and int(large.sum()) >= 5
        and float(whole[large].mean()) >= 0.6
        and len(np.unique(values[whole])) >= 3
    )


def nearly_whole(matrix: CellMatrix) -> bool:
    """Whether most values lie in the quarter below a whole number, among those near 1, near 2 and near 3 alike.

    Corrections for ambient RNA take a little off each count.
    """
    values = matrix.data[matrix.data > 0].astype(np.float64)
    below = np.ceil(values - 0.02) - values <= 0.25
    for low, high, few in ((0.3, 1.02, 20), (1.02, 2.02, 10), (2.02, 3.02, 5)):
        near = (values > low) & (values <= high)
        if int(near.sum()) < few or float(below[near].mean()) < 0.6:
            return False
    return True


def constant_sum(sums: NDArray[np.float64]) -> float | None:
    """What all cells sum to, or None. One or two cells only tell if that is a power of ten."""
    if not len(sums) or sums.min() <= 0:
        return None
    mean = float(sums.mean())
    spread = float(np.ptp(sums)) / mean
    for total in _ROUND:
        if abs(mean / total - 1) < 1e-4 and spread < 1e-3:
            return total
    return mean if len(sums) >= 3 and spread < 1e-3 else None


def coarse_decimals(matrix: CellMatrix) -> int | None:
    """With how many decimals the values were written, if many values are small compared with that; else None."""
    decimals = decimals_of(matrix.data)
    if decimals is None:
        return None
    small = matrix.data[matrix.data > 0] < 20.5 / 10**decimals
    return decimals if float(small.mean()) > 0.02 else None


def have_ties(matrix: CellMatrix) -> bool:
    """Whether many values of a cell are the same, as those of counts are, and of nothing that was scaled by gene."""
    shares = [
        float(np.unique(values, return_counts=True)[1].max() / len(values))
        for values in _cells(matrix)
        if len(values) >= _SOME
    ]
    return bool(shares) and float(np.median(shares)) > _TIES


def rows_with_fractions(matrix: CellMatrix) -> NDArray[np.int64]:
    """The cells in which a value is not whole."""
    entries = np.flatnonzero(matrix.data != np.rint(matrix.data))
    return np.unique(np.searchsorted(matrix.indptr, entries, side="right") - 1)


def whole_rows(matrix: CellMatrix, few: int) -> NDArray[np.int64]:
    """The cells with at least ``few`` values, all of them whole and some above 1."""
    fractions = np.concatenate([[0], np.cumsum(matrix.data != np.rint(matrix.data))])[matrix.indptr]
    large = np.concatenate([[0], np.cumsum(matrix.data > 1)])[matrix.indptr]
    lengths = np.diff(matrix.indptr)
    return np.flatnonzero((lengths >= few) & (np.diff(fractions) == 0) & (np.diff(large) > 0))


def refuse_unusable(matrix: CellMatrix, declared: Declaration) -> None:
    """Raise InputError for presence, ranks, bins, and values without zeros: none of them are expression of cells."""
    if matrix.origin.truth_values:
        raise unusable("boolean")
    if declared.name != "auto":
        return
    largest = float(matrix.data.max(initial=0))
    if len(matrix.data) >= _MANY and bool((matrix.data == largest).all()):
        raise unusable("binary")
    kinds = {_flat_kind(values) for values in _cells(matrix) if len(values) >= _SOME}
    if kinds and None not in kinds:
        raise unusable(next(iter(sorted(kind for kind in kinds if kind))))


def _cells(matrix: CellMatrix) -> list[NDArray[np.float32]]:
    rows = sampled_rows(matrix.num_cells, _SAMPLE)
    return [matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]] for row in rows]


def _flat_kind(values: NDArray[np.float32]) -> str | None:
    """``ranked`` or ``binned`` if the values of a cell are spread evenly, as those of no counts are."""
    values = values[values > 0]
    if float((2 * values > values.max()).mean()) < _FLAT:
        return None
    distinct = len(np.unique(values))
    if distinct > 0.9 * len(values) and values.max() <= 2.5 * max(len(values), 1) and 2 * values.max() >= len(values):
        half = values * 2
        return "ranked" if bool((half == np.rint(half)).all()) else None
    sizes = np.unique(values, return_counts=True)[1]
    # Bins by quantiles are of one size, more evenly than values drawn at random, whose variance is their mean.
    even = 5 <= len(sizes) <= 256 and float(sizes.var()) < _EVEN * float(sizes.mean())
    return "binned" if even and is_whole(values) else None


def refuse_same_values(matrix: CellMatrix) -> None:
    """Refuse cells with the same values for different genes, as after quantile normalisation. Raises InputError."""
    cells = _cells(matrix)
    first = np.sort(cells[0])
    same = len(cells) >= _FEW_CELLS and len(first) >= _SOME and all(len(values) == len(first) for values in cells)
    if not same or all(np.array_equal(values, cells[0]) for values in cells):
        return
    if all(np.allclose(np.sort(values), first, rtol=1e-5) for values in cells):
        raise unusable("same values")


def refuse_dense(matrix: CellMatrix) -> None:
    """Refuse values without zeros: imputed ones, and those of microarrays. Raises InputError."""
    rows = sampled_rows(matrix.num_cells, _SAMPLE)
    if matrix.num_genes >= _MANY_GENES and bool(
        (np.diff(matrix.indptr)[rows] >= 0.995 * matrix.num_gene_columns).all()
    ):
        raise unusable("dense")
    part = matrix.select(rows)
    if len(rows) < 3 or np.ptp(row_sums_of(part)) == 0:
        return
    found = sparse.csr_matrix((np.ones(len(part.data)), part.indices, part.indptr), (len(rows), matrix.num_genes))
    seen = np.asarray(found.sum(axis=0)).ravel()
    # Imputation fills a gene in all cells or in none.
    genes = int((seen > 0).sum())
    if genes >= _SOME_GENES and int(((seen > 0) & (seen < len(rows))).sum()) < 0.02 * genes:
        raise unusable("imputed")
