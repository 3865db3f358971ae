"""Warnings about input that is read, but may not be what the user thinks: plain sentences for people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport

_LOW_SHARE = 0.9  # of counts in known genes
_FEW_GENES = 200
_SELECTION = 8_000  # columns of a file with fewer may be chosen ones
_MANY_REPAIRS = 0.01  # share of columns; annotations have a few odd names anyway
_SHALLOW, _DEEP = 200, 1e8  # counts of a cell


def warnings_of(coverage: Coverage, report: InputReport, totals: NDArray[np.float64]) -> tuple[str, ...]:
    """What a user should know about how cells were read.

    Args:
        coverage: which columns were matched.
        report: what the values are.
        totals: ``[B]`` totals of the first cells.

    Example:
        >>> warnings_of(coverage, report, totals)
        ('12 % of the counts lie in genes that the model does not know.',)
    """
    found: list[str] = []
    if report.counts_matched is not None and report.counts_matched < _LOW_SHARE:
        percent = 100 * (1 - report.counts_matched)
        found.append(f"{percent:.0f} % of the counts lie in genes that the model does not know.")
    if coverage.genes_of_model < _FEW_GENES:
        found.append(f"Only {coverage.genes_of_model} genes of the model were measured: results are less reliable.")
    if coverage.left_out:
        number = sum(coverage.left_out.values())
        kinds = ", ".join(f"{reason} ({count})" for reason, count in coverage.left_out.items())
        found.append(f"{number} columns are no human genes and were left out: {kinds}.")
    number = sum(coverage.repaired.values())
    if number > _MANY_REPAIRS * coverage.genes_in:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in coverage.repaired.items())
        found.append(f"{number} gene names were repaired: {kinds}.")
    if report.detected == "counts":
        median = float(np.median(totals))
        if median < _SHALLOW and coverage.genes_of_model >= _FEW_GENES:
            found.append(f"The cells are shallow: half of them have fewer than {median:.0f} counts.")
        if median > _DEEP:
            found.append(f"The cells are unusually deep: half of them have more than {median:.2g} counts.")
    if report.detected == "counts" and report.divide_by == "sum" and coverage.genes_in <= _SELECTION:
        found.append(
            f"Each cell's counts are divided by their sum over {coverage.genes_in:,} columns. If they were selected "
            "from more genes, send all of them, or each cell's total as obs['total_counts']."
        )
    if report.source != "X":
        found.append(f"The values are those of {'raw.X' if report.source == 'raw' else _layer(report.source)}.")
    return (*found, *coverage.notes)


def _layer(name: str) -> str:
    return f"layers['{name}']"
