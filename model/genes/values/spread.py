"""Whether whole numbers are spread over genes as counts are, or as rounded logarithms, bins, ranks or scaled values.

Counts are at least as uneven as chance makes them: over the genes of a cell, and over the cells for each gene. The
limits were measured on 41 files of many technologies, also thinned and cut down to panels
(tests/inputs/true_counts.py). Random numbers pass as well.
Values that are declared as counts are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import expm1
from statistics import median

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.evidence import sampled_rows
from scpalm.model.genes.values.linear import row_sums_of
from scpalm.model.genes.values.refusals import cut_off, too_even, unusable
from scpalm.model.genes.values.totals import is_complete

_SAMPLE = 32
_SOME, _ENOUGH = 60, 200  # values of a cell that are worth a look, and of all cells that are enough to refuse

# Spread of a cell: 2 for a geometric distribution. Few real cells, panels and thinned cells have under 1.45.
_CELL_SPREAD, _SMALLEST_MEAN = 1.36, 1.8
_LONE_SPREAD, _LONE_MEAN, _CHANCE = 1.25, 1.3, 0.93  # of any numbers, also random ones
# Variance over mean of genes with large values: 1 by chance; 1.13 or more in all real files, also of one type of cell.
_GENE_SPREAD, _GENE_MEAN, _MANY_GENES = 0.65, 2.0, 10
_DIFFERENT = 2.0  # variance between genes over that within genes: random numbers have 1
_LARGE_MEAN, _NEAR_CHANCE = 10.0, 0.2  # simulated counts: bins and logarithms of such means vary more or less than that
_FEW_CELLS, _MANY_CELLS = 8, 20
_EFFECTIVE_GENES = 3_500  # of a complete file; real ones have at most 2,300

_STEP, _STEP_SHARE, _STEP_SPREAD = 3, 0.15, 2.0
_FEW_LEVELS, _MANY_LEVELS = 8, 30
_TOP, _PILE, _PILED, _PILE_SHARE = 5, 10, 1.5, 0.04
_ALL_GENES, _PSEUDO_SHARE = 500, 0.5
_SAME_SUM, _USUAL_SUM, _USUAL_SUMS = 0.05, 0.1, (1e4, 1e5, 1e6)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Some cells with enough values.

    Attributes:
        values: the values of each, none of them zero.
        means: their means.
        spreads: ``sum x (x - 1) / sum x / (mean - 1)`` of each.
    """

    values: list[NDArray[np.int64]]
    means: list[float]
    spreads: list[float]

    @cached_property
    def mean(self) -> float:
        return median(self.means)

    @cached_property
    def spread(self) -> float:
        return median(self.spreads)

    @property
    def num_values(self) -> int:
        return sum(map(len, self.values))


@dataclass(frozen=True)
class _Genes:
    """How genes vary over some cells.

    Attributes:
        spread: median variance over mean of the genes with large values; None if there are few, or most are such genes.
        difference: variance between genes over variance within genes.
        effective: ``1 / sum p^2``, where p is the share of each gene in the sum of all cells.
        at_chance: whether genes with large values vary as counts of like cells do, which have a Poisson law.
    """

    spread: float | None
    difference: float
    effective: float
    at_chance: bool


def check_spread(matrix: CellMatrix) -> tuple[str, ...]:
    """Warnings about whole numbers. Raises InputError if they are ranks, cut off, or too even to be counts."""
    some = matrix.select(sampled_rows(matrix.num_cells, _SAMPLE))
    cells = _cells(some)
    if not cells.values:
        return ()
    if all(map(_are_ranks, cells.values)) or _are_dense_ranks(cells):
        raise unusable("ranked")
    _refuse_pseudo_count(some, cells)
    found = _cut_off(cells)
    _refuse_even_cells(cells)
    if some.num_cells < _FEW_CELLS:
        return found
    genes = _genes(some)
    if genes.difference <= _DIFFERENT:
        return found
    _refuse_even_genes(cells, genes)
    return (*found, *_doubts(some, genes)) if is_complete(matrix) else found


def _doubts(matrix: CellMatrix, genes: _Genes) -> Iterator[str]:
    """Warnings about the values of all genes."""
    if genes.effective > _EFFECTIVE_GENES:
        yield (
            "The values are spread over the genes more evenly than counts of cells. They may be rounded logarithms, "
            "bins or scaled values; results are right for raw counts only."
        )
    sums = row_sums_of(matrix)
    mean, deviation = float(sums.mean()), float(sums.std())
    usual = any(abs(mean / total - 1) < _USUAL_SUM for total in _USUAL_SUMS)
    # Cells that were sampled to one depth have exactly the same sum.
    if 0 < deviation < (_USUAL_SUM if usual else _SAME_SUM) * mean:
        yield (
            f"Each cell sums to about {mean:.4g}: the values seem to be normalised counts that were rounded, and small "
            "counts may be lost. Send raw counts."
        )


def _cells(matrix: CellMatrix) -> _Cells:
    values, means, spreads = [], [], []
    for row in range(matrix.num_cells):
        whole = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]].astype(np.int64)
        whole = whole[whole > 0]
        number, total = len(whole), int(whole.sum())
        if number >= _SOME and total > number:
            values.append(whole)
            means.append(total / number)
            squares = float(np.dot(whole.astype(np.float64), whole))
            spreads.append((squares / total - 1) / (total / number - 1))
    return _Cells(values, means, spreads)


def _refuse_even_cells(cells: _Cells) -> None:
    """Refuse values of cells that vary less than chance makes counts vary, even if all genes were alike."""
    spread = cells.spread
    if cells.num_values < _ENOUGH or cells.mean < _LONE_MEAN:
        return
    if spread < _LONE_SPREAD and spread < _CHANCE * (by_chance := median(map(_spread_by_chance, cells.means))):
        raise too_even(f"their spread within a cell is {spread:.2f}, and chance alone gives counts {by_chance:.2f}")
    if spread < _STEP_SPREAD and 2 * sum(map(_lacks_multiples, cells.values)) > len(cells.values):
        raise too_even("the smallest of a cell is common, but twice as much is not the next")


def _refuse_even_genes(cells: _Cells, genes: _Genes) -> None:
    """Refuse values of genes that differ in expression, if they are more even than those of such genes can be."""
    mean, spread = cells.mean, cells.spread
    if spread < _CELL_SPREAD and mean >= _SMALLEST_MEAN and not (mean > _LARGE_MEAN and genes.at_chance):
        raise too_even(f"their spread within a cell is {spread:.2f}, and that of counts is over 1.45")
    if genes.spread is not None and genes.spread < _GENE_SPREAD:
        raise too_even(
            f"over the cells, the variance of a gene is {genes.spread:.2f} of its mean, and that of counts is 1 or more"
        )


def _spread_by_chance(mean: float) -> float:
    """The spread of counts with this mean over equally expressed genes (Poisson, without zeros)."""
    rate = mean
    for _ in range(40):
        rate = mean * -expm1(-rate)
    return rate / (mean - 1)


def _are_ranks(values: NDArray[np.int64]) -> bool:
    """Whether each level is the one below plus the number of values there: ranks, of which equal values share one."""
    if values.sum() * 20 < len(values) ** 2:  # the mean of ranks is about half their number
        return False
    levels, sizes = np.unique(values, return_counts=True)
    steps = np.diff(levels)
    return len(levels) >= _FEW_LEVELS and (bool((steps == sizes[:-1]).all()) or bool((steps == sizes[1:]).all()))


def _are_dense_ranks(cells: _Cells) -> bool:
    """Whether the values of each cell are all numbers up to its largest, and many of them are there only once."""
    if max(int(values.max()) for values in cells.values) < _MANY_LEVELS:
        return False
    once = False
    for values in cells.values:
        largest = int(values.max())
        sizes = np.bincount(values)[1:] if largest <= len(values) else np.zeros(1)
        if not sizes.all():
            return False
        upper = sizes[len(sizes) // 2 :]
        once = once or (largest >= _MANY_LEVELS and 2 * int((upper == 1).sum()) >= len(upper))
    return once


def _lacks_multiples(values: NDArray[np.int64]) -> bool:
    """Whether the smallest value is as common as that of one count, and the next ones are below that of two."""
    smallest = int(values.min())
    if smallest < _STEP:
        return False
    # Half a unit of rounding in one count is a whole unit in two.
    one = int((values == smallest).sum())
    between = int(((values > smallest) & (values < 2 * smallest - 1)).sum())
    return min(one, between) >= _STEP_SHARE * len(values)


def _cut_off(cells: _Cells) -> tuple[str, ...]:
    """A warning if the largest value is more common than those just below it. Raises InputError if it is common."""
    largest = max(int(values.max()) for values in cells.values)
    if largest < _TOP:
        return ()
    near = largest - max(1, largest // 5)
    at_top = np.array([int((values == largest).sum()) for values in cells.values])
    top, below = int(at_top.sum()), sum(int((near <= values).sum()) for values in cells.values)
    # One gene that is the largest of many cells tells nothing.
    if int(np.maximum(at_top - 1, 0).sum()) < _PILE or top <= _PILED * (below - top):
        return ()
    if top > _PILE_SHARE * cells.num_values:
        raise cut_off(largest, top)
    return (f"The values seem to be cut off at {largest}: {top} values of the first cells are just that.",)


def _refuse_pseudo_count(matrix: CellMatrix, cells: _Cells) -> None:
    """Refuse counts to which a number was added: there are no zeros, and the smallest value is the most common."""
    full = matrix.num_gene_columns >= _ALL_GENES and len(cells.values) == matrix.num_cells
    if not full or any(len(values) < matrix.num_gene_columns for values in cells.values):
        return
    smallest = min(int(values.min()) for values in cells.values)
    if all((values == smallest).mean() >= _PSEUDO_SHARE for values in cells.values):
        raise unusable("pseudo-count")


def _genes(matrix: CellMatrix) -> _Genes:
    num_cells, data = matrix.num_cells, matrix.data.astype(np.float64)
    mean = np.bincount(matrix.indices, data, matrix.num_genes) / num_cells
    squares = np.bincount(matrix.indices, data * data, matrix.num_genes) / num_cells
    variance = (squares - mean**2) * num_cells / (num_cells - 1)
    within = float(variance.mean()) / num_cells
    difference = float(mean.var()) / within if within > 0 else 0.0
    large = mean >= _GENE_MEAN
    number = int(large.sum())
    few = num_cells < _MANY_CELLS or number < _MANY_GENES or 2 * number > int((mean > 0).sum())
    ratio = float(np.median(variance[large] / mean[large])) if number else 0.0
    spread = None if few else ratio
    at_chance = num_cells >= _MANY_CELLS and number >= _MANY_GENES and abs(ratio - 1) < _NEAR_CHANCE
    total = mean * num_cells
    pairs = float((total * (total - 1)).sum())
    effective = float(total.sum()) ** 2 / pairs if pairs > 0 else 0.0
    return _Genes(spread, difference, effective, at_chance)
