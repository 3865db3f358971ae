"""Decide what the values of a file are: counts, normalised values or logarithms, and what whole cells sum to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes import shapes
from scpalm.model.genes.declared import AUTO, Declaration
from scpalm.model.genes.evidence import Evidence
from scpalm.model.genes.linear import linear_sums, row_sums_of
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.refusals import (
    contradiction,
    mixed,
    not_logs,
    over_total,
    rounded,
    total_needed,
    undecided,
    unusable,
)
from scpalm.model.genes.report import InputReport

# A file with at least this many genes holds nearly all of them, so a cell's sum is its total. Fewer are a selection.
COMPLETE_GENES = 5000
# Largest plausible value of each logarithm: 1e9 of one gene.
_LARGEST = {"log": 21.0, "log2": 30.0, "log10": 9.1}
_BASES: dict[str, Literal["e", "2", "10"]] = {"log": "e", "log2": "2", "log10": "10"}
_SAMPLED_CELLS, _CHECKED_CELLS = 32, 8
_FEW_VALUES = 20  # fewer values cannot show what they are
# What whole cells are usually brought to, the most usual first. All powers of ten that hold are multiples of another.
_USUAL_TOTALS = (1e4, 1e5, 1e6, 1.0)


def detect_input(matrix: CellMatrix, declared: Declaration = AUTO) -> InputReport:
    """Decide what the values of a validated matrix of genes are, from its first cells.

    Raises InputError if that is not certain, if a declaration contradicts the values, or if they cannot be used.
    """
    shapes.refuse_unusable(matrix, declared)
    if declared.name == "auto" and shapes.is_whole(matrix.data):
        return _counts(matrix, "every value is a whole number")
    evidence = Evidence.of(matrix, _SAMPLED_CELLS)
    found = evidence.transform()
    if declared.name != "auto":
        return _declared(matrix, declared, evidence, found)
    if found is not None:
        _refuse_mixed(matrix, evidence, found)
    if found in ("sqrt", "log of log"):
        raise unusable(found)
    if found == "linear" or (found is None and shapes.mostly_whole(matrix)):
        return _linear(matrix, declared, evidence)
    if found is not None:
        return _log(matrix, declared, evidence, found)
    return _without_steps(matrix, declared)


def _counts(matrix: CellMatrix, why: str) -> InputReport:
    if matrix.totals is None and _has_totals(matrix, row_sums_of(matrix)):
        why = f"{why}; {_of_totals(matrix)}"
        return _report(matrix, InputReport("counts", why, divide_by="obs"))
    return _report(matrix, InputReport("counts", why))


def _report(matrix: CellMatrix, report: InputReport) -> InputReport:
    why = f"{matrix.origin.why}; {report.why}" if matrix.origin.why else report.why
    return replace(report, why=why, source=matrix.origin.name)


def _is_complete(matrix: CellMatrix) -> bool:
    return matrix.num_gene_columns >= COMPLETE_GENES


def _linear(matrix: CellMatrix, declared: Declaration, evidence: Evidence) -> InputReport:
    """Whole counts with some fractions, scaled counts, or normalised values without a logarithm."""
    units = np.array([fit.unit for fit in evidence.of_transform("linear") if fit.levels])
    if not len(units) or shapes.mostly_whole(matrix) or bool((np.abs(units - 1) < 1e-3).all()):
        return _counts(matrix, "nearly all values are whole numbers")
    if len(units) > 1 and np.ptp(units) < 1e-3 * units.mean():
        why = f"all values are multiples of {units.mean():.4g}: counts with a common factor"
        if _has_totals(matrix, _counted(matrix, evidence, "linear")):
            return _report(matrix, InputReport("counts", f"{why}; {_of_totals(matrix)}", divide_by="unit"))
        return _report(matrix, InputReport("counts", why))
    why = "the values of each cell are multiples of one number, and not logarithms: normalised counts"
    return _normalised(matrix, declared, evidence, InputReport("linear", why))


def _log(matrix: CellMatrix, declared: Declaration, evidence: Evidence, name: str) -> InputReport:
    base = _BASES[name]
    why = (
        f"undoing a {'natural logarithm' if base == 'e' else f'logarithm of base {base}'} gives whole multiples of one "
        "number in each cell, undoing others does not"
    )
    units = np.array([fit.unit for fit in evidence.of_transform(name) if fit.levels])
    report = InputReport("log", why, base, rounded=evidence.rounded)
    if len(units) and bool((np.abs(units - 1) < 1e-3).all()):
        if _has_totals(matrix, _counted(matrix, evidence, name)):
            return _report(matrix, replace(report, why=f"{why}; {_of_totals(matrix)}", divide_by="unit"))
        return _report(matrix, replace(report, why=f"{why}: log of raw counts"))
    return _normalised(matrix, declared, evidence, report)


def _normalised(matrix: CellMatrix, declared: Declaration, evidence: Evidence, report: InputReport) -> InputReport:
    """Find what cells of normalised counts are to be divided by. Raises InputError if a selection does not show it."""
    sums = linear_sums(matrix, report.transform)
    complete = _is_complete(matrix)
    total = declared.whole_cell
    if total is not None:
        return _with_total(matrix, report, sums, total, "as declared")
    counted = not complete and _has_totals(matrix, _counted(matrix, evidence, report.transform))
    by_totals = replace(report, why=f"{report.why}; {_of_totals(matrix)}", divide_by="unit")
    if counted and _fits_totals(matrix, evidence, report.transform):
        return _report(matrix, by_totals)
    constant = shapes.constant_sum(sums)
    if constant is not None and not counted:
        return _report(matrix, replace(report, why=f"{report.why}; each cell sums to {constant:g}", total=constant))
    total = _total_of_whole_numbers(evidence, report.transform, sums) if constant is None else None
    if total is not None and (not complete or (not matrix.partial and (sums > 0.5 * total).all())):
        return _with_total(matrix, report, sums, total, "which makes the cells' totals whole numbers")
    if counted:
        return _report(matrix, by_totals)
    if complete:
        return _report(matrix, replace(report, why=f"{report.why}; each cell is divided by its sum"))
    raise total_needed(matrix, report.base, sums)


def _with_total(
    matrix: CellMatrix, report: InputReport, sums: NDArray[np.float64], total: float, reason: str
) -> InputReport:
    over = np.flatnonzero(sums > total * (1 + 1e-3))
    if len(over):
        raise over_total(matrix, int(over[0]), float(sums[over[0]]), total)
    why = f"{report.why}; a whole cell sums to {total:g}, {reason}"
    return _report(matrix, replace(report, why=why, total=total, divide_by="total"))


def _without_steps(matrix: CellMatrix, declared: Declaration) -> InputReport:
    """Values that are no multiples of one number: of corrected counts, of lengths of genes, or of something else."""
    shapes.refuse_dense(matrix)
    coarse = shapes.coarse_decimals(matrix)
    for name in ("linear", *_BASES):
        if float(matrix.data.max(initial=0)) > _LARGEST.get(name, np.inf):
            continue
        constant = shapes.constant_sum(linear_sums(matrix, name))
        if constant is not None:
            if name != "linear" and coarse is not None:
                raise rounded(matrix, coarse)
            kind = "without a logarithm" if name == "linear" else f"after undoing a logarithm of base {_BASES[name]}"
            why = f"each cell sums to {constant:g} {kind}"
            report = InputReport("linear" if name == "linear" else "log", why, _BASES.get(name), constant)
            return _report(matrix, report)
    if shapes.nearly_whole(matrix):
        return _counts(matrix, "most values lie just under whole numbers: corrected counts")
    noted = next((name for name, base in _BASES.items() if _same_base(matrix.origin.log_base, base)), None)
    if noted is not None:
        report = InputReport("log", f"uns['log1p'] notes a logarithm of base {_BASES[noted]}", _BASES[noted])
        return _by_sum_or_total(matrix, declared, report)
    raise undecided(matrix)


def _same_base(noted: float | None, base: str) -> bool:
    return noted is not None and math.isclose(noted, math.e if base == "e" else float(base), rel_tol=1e-6)


def _declared(matrix: CellMatrix, declared: Declaration, evidence: Evidence, found: str | None) -> InputReport:
    whole = shapes.is_whole(matrix.data)
    why = f"declared as {declared.name}"
    if declared.name == "counts":
        few = len(matrix.data) < _FEW_VALUES and not whole
        if few or (not whole and found not in (None, "linear") and not shapes.mostly_whole(matrix)):
            raise contradiction(matrix, declared, found)
        return _counts(matrix, f"{why}, and every value is a whole number" if whole else f"{why}, with fractions")
    kind = "linear" if declared.linear else declared.name.partition("_")[0]
    if kind != "linear":
        entry = int(matrix.data.argmax()) if len(matrix.data) else 0
        if len(matrix.data) and matrix.data[entry] > _LARGEST[kind]:
            raise not_logs(matrix, declared, entry)
    certain = whole and len(matrix.data) >= _FEW_VALUES and kind != "linear"
    if certain or (found is not None and found != kind and kind != "linear"):
        raise contradiction(matrix, declared, "counts" if whole else found)
    if found not in (None, kind):
        raise contradiction(matrix, declared, found)
    report = InputReport("linear" if kind == "linear" else "log", why, _BASES.get(kind))
    if found == kind:
        return _normalised(matrix, declared, evidence, report)
    return _by_sum_or_total(matrix, declared, report)


def _by_sum_or_total(matrix: CellMatrix, declared: Declaration, report: InputReport) -> InputReport:
    sums = linear_sums(matrix, report.transform)
    if declared.whole_cell is not None:
        return _with_total(matrix, report, sums, declared.whole_cell, "as declared")
    constant = shapes.constant_sum(sums)
    if constant is None and not _is_complete(matrix):
        raise total_needed(matrix, report.base, sums)
    return _report(matrix, replace(report, why=f"{report.why}; each cell is divided by its sum", total=constant))


def _refuse_mixed(matrix: CellMatrix, evidence: Evidence, name: str) -> None:
    row = evidence.disagreeing(name)
    if row is not None:
        raise mixed(matrix, row)


# --- totals


def _of_totals(matrix: CellMatrix) -> str:
    return f"the columns are a selection of genes, and the totals are those of obs['{matrix.origin.totals_column}']"


def _has_totals(matrix: CellMatrix, counts: NDArray[np.float64]) -> bool:
    """Whether the file's own totals are those of whole cells, of which the columns are a selection."""
    totals = matrix.obs_totals
    if totals is None or _is_complete(matrix) or not len(counts):
        return False
    large = np.isfinite(totals) & (totals > 0) & (totals >= counts * (1 - 1e-6) - 0.5)
    # Totals with fractions are those of normalised values or logarithms.
    whole = np.abs(totals - np.rint(totals)) <= 1e-6 * totals
    # Totals of normalised values are all the same.
    same = len(totals) > 2 and np.ptp(totals) <= 1e-3 * totals.mean()
    return bool((large & whole).all() and not same)


def _fits_totals(matrix: CellMatrix, evidence: Evidence, name: str) -> bool:
    """Whether whole cells with the file's totals were brought to the same sum."""
    if matrix.obs_totals is None or len(evidence.rows) < 2:
        return False
    units = np.array([fits[name].unit if name in fits else np.nan for fits in evidence.fits])
    sums = units * matrix.obs_totals[evidence.rows]
    return bool(np.ptp(sums) <= 2e-3 * sums.mean())


def _counted(matrix: CellMatrix, evidence: Evidence, name: str) -> NDArray[np.float64]:
    """``[B]`` sums in units of one count, of the cells that were looked at; 0 for others."""
    counts = np.zeros(matrix.num_cells)
    for row, fits in zip(evidence.rows, evidence.fits, strict=True):
        counts[row] = fits[name].counts if name in fits else np.inf
    return counts


def _total_of_whole_numbers(evidence: Evidence, name: str, sums: NDArray[np.float64]) -> float | None:
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
        # Totals known less precisely than to a quarter of a count tell nothing.
        if enough and (slack < 0.25).all() and (np.abs(counts - np.rint(counts)) <= slack).all():
            return total
    return None


def _check_fractions(matrix: CellMatrix, declared: Declaration) -> None:
    odd = shapes.rows_with_fractions(matrix)
    if not len(odd):
        return
    some = matrix.select(odd)
    evidence = Evidence.of(some, _SAMPLED_CELLS)
    row = evidence.disagreeing("linear")
    if row is not None:
        raise mixed(some, row)
    likely = evidence.transform() == "linear" or shapes.mostly_whole(some) or shapes.nearly_whole(some)
    if declared.name == "auto" and not likely:
        raise mixed(some, 0)


def check_chunk(matrix: CellMatrix, report: InputReport, declared: Declaration = AUTO) -> None:
    """Check that all cells are what the first ones of the file were. Raises InputError (``mixed-input``)."""
    if report.detected == "counts":
        _check_fractions(matrix, declared)
        return
    whole = shapes.whole_rows(matrix, _FEW_VALUES)
    if len(whole):
        raise mixed(matrix, int(whole[0]))
    evidence = Evidence.of(matrix, _CHECKED_CELLS)
    _refuse_mixed(matrix, evidence, report.transform)
