"""What whole cells sum to, of which the columns are a selection: from ``obs``, or from the values themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.evidence import Evidence

# A file with at least this many genes holds nearly all of them, so a cell's sum is its total. Fewer are a selection.
COMPLETE_GENES = 5000
# What whole cells are usually brought to, the most usual first.
_USUAL_TOTALS = (1e4, 1e5, 1e6, 1.0)
# Totals over sums of a file that lacks some genes; larger ratios are totals of something else.
_SOME_MORE, _FAR_MORE = 1.05, 5.0
_MORE_WITH_RIBOSOMES = 1.5  # those of reads are larger
FEW_CELLS = 3  # fewer may fit a total by chance


def is_complete(matrix: CellMatrix) -> bool:
    """Whether the columns are nearly all genes, not a selection."""
    return matrix.num_gene_columns >= COMPLETE_GENES


def _lacks_genes(matrix: CellMatrix, totals: NDArray[np.float64], counts: NDArray[np.float64]) -> bool:
    """Whether many counts of a file with nearly all genes are those of genes that were removed, such as ribosomal ones.

    A few per cent are counts of genes that no analysis keeps.
    """
    known = counts > 0
    ratio = float(np.median(totals[known] / counts[known])) if known.any() else 1.0
    if matrix.partial or not _SOME_MORE < ratio < _FAR_MORE:
        return False
    return ratio < _MORE_WITH_RIBOSOMES or not _has_ribosomes(matrix)


def _has_ribosomes(matrix: CellMatrix) -> bool:
    """Whether genes of ribosomes and of mitochondria, which are removed most often, have columns."""
    starts = [name[:3].upper() for name in map(str, matrix.genes)]
    return sum(start in ("RPL", "RPS") for start in starts) >= 20 and starts.count("MT-") + starts.count("MT.") >= 5


def of_totals(matrix: CellMatrix) -> str:
    """The reason to give when the totals of the file are used."""
    return f"the columns are a selection of genes, and the totals are those of obs['{matrix.origin.totals_column}']"


def has_totals(matrix: CellMatrix, counts: NDArray[np.float64]) -> bool:
    """Whether the file's own totals are those of whole cells, of which the columns are a selection.

    Raises InputError if some cells of a selection have such a total and others have none.
    """
    totals = matrix.obs_totals
    if totals is None or not len(counts):
        return False
    if is_complete(matrix) and not _lacks_genes(matrix, totals, counts):
        return False
    large = np.isfinite(totals) & (totals > 0) & (totals >= counts * (1 - 1e-6) - 0.5)
    # Totals with fractions are those of normalised values or logarithms.
    whole = np.abs(totals - np.rint(totals)) <= 1e-6 * totals
    # Totals of normalised values are all the same.
    known = np.isfinite(totals) & (totals > 0)
    same = known.sum() > 2 and np.ptp(totals[known]) <= 1e-3 * totals[known].mean()
    if same or not known.any() or not (large & whole)[known].all():
        return False
    if known.all():
        return True
    if is_complete(matrix):
        return False
    row, name = int(np.flatnonzero(~known)[0]), matrix.origin.totals_column
    raise InputError(
        "bad-total",
        f"Cell '{matrix.cells[row]}' has no total in obs['{name}'] ({totals[row]:g}), but other cells have one.",
        hint="The columns are a selection of genes, so each cell needs the sum of all its genes. Complete the column, "
        "send the cells without a total separately, or remove the column.",
        field=f"obs/{name}",
        cell=matrix.cells[row],
    )


def fits_totals(matrix: CellMatrix, evidence: Evidence, name: str) -> bool:
    """Whether whole cells with the file's totals were brought to the same sum."""
    if matrix.obs_totals is None or len(evidence.rows) < 2:
        return False
    units = np.array([fits[name].unit if name in fits else np.nan for fits in evidence.fits])
    sums = units * matrix.obs_totals[evidence.rows]
    return bool(np.ptp(sums) <= 2e-3 * sums.mean())


def counted(matrix: CellMatrix, evidence: Evidence, name: str) -> NDArray[np.float64]:
    """``[B]`` sums in units of one count, of the cells that were looked at; 0 for others."""
    counts = np.zeros(matrix.num_cells)
    for row, fits in zip(evidence.rows, evidence.fits, strict=True):
        counts[row] = fits[name].counts if name in fits else np.inf
    return counts


def total_of_whole_numbers(evidence: Evidence, name: str, sums: NDArray[np.float64]) -> float | None:
    """What whole cells sum to: a usual total that makes the number of counts of each cell a whole number."""
    fits = [fit for fit in evidence.of_transform(name) if fit.levels]
    units = np.array([fit.unit for fit in fits])
    # If one count became the same in all cells, they were not brought to a total.
    if not fits or (len(fits) > 1 and np.ptp(units) < 1e-4 * units.mean()):
        return None
    for total in _USUAL_TOTALS:
        counts = np.array([total / fit.unit for fit in fits])
        slack = np.maximum(3e-3, counts * np.array([3 * fit.precision for fit in fits]))
        enough = (counts >= np.array([fit.counts for fit in fits]) - 0.5).all() and sums.max() <= total * (1 + 1e-3)
        # Totals known less precisely than to a quarter of a count tell nothing, and those of few cells less.
        precise = (slack < (0.25 if len(fits) >= FEW_CELLS else 0.02)).all()
        if enough and precise and (np.abs(counts - np.rint(counts)) <= slack).all():
            return None if _is_multiple(counts) else total
    return None


def _is_multiple(counts: NDArray[np.float64]) -> bool:
    """Whether the cells' counts, or those of many of them, share a factor: then the total is smaller."""
    if len(counts) <= FEW_CELLS:
        return False
    whole = np.rint(counts).astype(np.int64)
    return int(np.gcd.reduce(whole)) > 1 or float((whole % 100 == 0).mean()) > 0.2
