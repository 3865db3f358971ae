"""Decide what the values of a file are: counts, normalised values or logarithms, and what whole cells sum to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values import shapes
from scpalm.model.genes.values.declared import AUTO, Declaration
from scpalm.model.genes.values.evidence import Evidence, decimals_of
from scpalm.model.genes.values.linear import linear_sums, row_sums_of
from scpalm.model.genes.values.refusals import (
    contradiction,
    mixed,
    not_logs,
    over_total,
    rounded,
    total_needed,
    total_of_counts,
    undecided,
    unusable,
)
from scpalm.model.genes.values.spread import check_spread
from scpalm.model.genes.values.totals import (
    FEW_CELLS,
    counted,
    fits_totals,
    has_totals,
    is_complete,
    of_totals,
    total_of_whole_numbers,
)

# Largest plausible value of each logarithm: 1e9 of one gene.
_LARGEST = {"log": 21.0, "log2": 30.0, "log10": 9.1}
_BASES: dict[str, Literal["e", "2", "10"]] = {"log": "e", "log2": "2", "log10": "10"}
_SAMPLED_CELLS, _CHECKED_CELLS = 32, 8
_FEW_VALUES = 20  # fewer values cannot show what they are


def detect_input(matrix: CellMatrix, declared: Declaration = AUTO) -> InputReport:
    """Decide what the values of a validated matrix of genes are, from its first cells.

    Raises InputError if that is not certain, if a declaration contradicts the values, or if they cannot be used.
    """
    shapes.refuse_unusable(matrix, declared)
    if declared.name == "auto" and shapes.is_whole(matrix.data):
        doubts = check_spread(matrix)
        return replace(_counts(matrix, declared, "every value is a whole number"), warnings=doubts)
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


def _counts(matrix: CellMatrix, declared: Declaration, why: str) -> InputReport:
    if declared.total is not None:
        raise total_of_counts()
    if matrix.totals is None and has_totals(matrix, row_sums_of(matrix)):
        why = f"{why}; {of_totals(matrix)}"
        return _report(matrix, InputReport("counts", why, divide_by="obs"))
    return _report(matrix, InputReport("counts", why))


def _report(matrix: CellMatrix, report: InputReport) -> InputReport:
    why = f"{matrix.origin.why}; {report.why}" if matrix.origin.why else report.why
    return replace(report, why=why, source=matrix.origin.name)


def _linear(matrix: CellMatrix, declared: Declaration, evidence: Evidence) -> InputReport:
    """Whole counts with some fractions, scaled counts, or normalised values without a logarithm."""
    units = np.array([fit.unit for fit in evidence.of_transform("linear") if fit.levels])
    if not len(units) or shapes.mostly_whole(matrix) or bool((np.abs(units - 1) < 1e-3).all()):
        return _counts(matrix, declared, "nearly all values are whole numbers")
    if len(units) > 1 and np.ptp(units) < 1e-3 * units.mean():
        doubts = check_spread(replace(matrix, data=np.rint(matrix.data / units.mean())))
        if doubts and decimals_of(matrix.data) is not None:
            raise undecided(matrix)  # not a factor, but few decimals
        why = f"all values are multiples of {units.mean():.4g}: counts with a common factor"
        report = InputReport("counts", why, warnings=doubts)
        if has_totals(matrix, counted(matrix, evidence, "linear")):
            return _report(matrix, replace(report, why=f"{why}; {of_totals(matrix)}", divide_by="unit"))
        return _report(matrix, report)
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
        if declared.total is not None:
            raise total_of_counts()
        if has_totals(matrix, counted(matrix, evidence, name)):
            return _report(matrix, replace(report, why=f"{why}; {of_totals(matrix)}", divide_by="unit"))
        return _report(matrix, replace(report, why=f"{why}: log of raw counts"))
    return _normalised(matrix, declared, evidence, report)


def _normalised(matrix: CellMatrix, declared: Declaration, evidence: Evidence, report: InputReport) -> InputReport:
    """Find what cells of normalised counts are to be divided by. Raises InputError if a selection does not show it."""
    sums = linear_sums(matrix, report.transform)
    complete = is_complete(matrix)
    total = declared.whole_cell
    if total is not None:
        return _with_total(matrix, report, sums, total, "as declared")
    selected = not complete and has_totals(matrix, counted(matrix, evidence, report.transform))
    by_totals = replace(report, why=f"{report.why}; {of_totals(matrix)}", divide_by="unit")
    if selected and fits_totals(matrix, evidence, report.transform):
        return _report(matrix, by_totals)
    constant = shapes.constant_sum(sums)
    if constant is not None and not selected:
        return _report(matrix, replace(report, why=f"{report.why}; each cell sums to {constant:g}", total=constant))
    total = total_of_whole_numbers(evidence, report.transform, sums) if constant is None else None
    if total is not None and not matrix.partial:
        if complete and len(sums) < FEW_CELLS and (sums < 0.5 * total).any():
            raise total_needed(matrix, report.base, sums)  # chance, or a cell without many of its genes
        return _with_total(matrix, report, sums, total, "which makes the cells' totals whole numbers")
    if selected:
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
    constant = shapes.constant_sum(sums)
    if is_complete(matrix) and constant is not None and abs(constant / total - 1) > 0.01:
        raise over_total(matrix, 0, float(sums[0]), total, all_cells=True)
    why = f"{report.why}; a whole cell sums to {total:g}, {reason}"
    return _report(matrix, replace(report, why=why, total=total, divide_by="total"))


def _without_steps(matrix: CellMatrix, declared: Declaration) -> InputReport:
    """Values that are no multiples of one number: of corrected counts, of lengths of genes, or of something else."""
    shapes.refuse_dense(matrix)
    shapes.refuse_same_values(matrix)
    coarse = shapes.coarse_decimals(matrix)
    for name in ("linear", *_BASES):
        if float(matrix.data.max(initial=0)) > _LARGEST.get(name, np.inf):
            continue
        constant = shapes.constant_sum(linear_sums(matrix, name))
        if constant is not None:
            if name != "linear" and coarse is not None:
                raise rounded(matrix, coarse)
            if shapes.have_ties(matrix):
                raise undecided(matrix)  # normalised once more, e.g. after a logarithm
            kind = "without a logarithm" if name == "linear" else f"after undoing a logarithm of base {_BASES[name]}"
            why = f"each cell sums to {constant:g} {kind}"
            report = InputReport("linear" if name == "linear" else "log", why, _BASES.get(name), constant)
            return _report(matrix, report)
    if shapes.nearly_whole(matrix):
        return _counts(matrix, declared, "most values lie just under whole numbers: corrected counts")
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
        return _counts(
            matrix, declared, f"{why}, and every value is a whole number" if whole else f"{why}, with fractions"
        )
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
    if constant is None and not is_complete(matrix):
        raise total_needed(matrix, report.base, sums)
    return _report(matrix, replace(report, why=f"{report.why}; each cell is divided by its sum", total=constant))


def _refuse_mixed(matrix: CellMatrix, evidence: Evidence, name: str) -> None:
    row = evidence.disagreeing(name)
    if row is not None:
        raise mixed(matrix, row)


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
