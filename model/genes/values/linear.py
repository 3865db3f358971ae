"""Convert values to linear ones, and find what each cell is divided by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.evidence import INVERSES, unit_of
from scpalm.model.genes.values.refusals import over_total, unit_unclear

SCALE = 1e4


def to_linear(matrix: CellMatrix, report: InputReport) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear values ``[entries]``, which may be summed over duplicate genes, and what to divide them by ``[B]``.

    The model's input is ``log1p(1e4 * value / divisor)``. Raises InputError, which names the cell, if a cell is empty.
    """
    sums = row_sums_of(matrix)
    empty = np.flatnonzero(sums <= 0)
    if len(empty):
        names = ", ".join(f"'{matrix.cells[i]}'" for i in empty[:5])
        raise InputError(
            "empty-cell",
            f"{len(empty)} cell(s) have no counts: {names}.",
            hint="Remove empty cells before sending the data.",
            field="data",
            cell=str(matrix.cells[empty[0]]),
        )
    linear = matrix.data.astype(np.float64)
    if report.base is not None:
        linear = INVERSES[report.transform](linear)
        if report.rounded:
            linear = _whole(matrix, linear, report.transform)
        sums = row_sums(linear, matrix.indices, matrix.indptr, matrix.num_genes)
    return linear, _divisors(matrix, report, sums)


def _whole(matrix: CellMatrix, linear: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Values that were rounded as logarithms, moved to the nearest multiple of what one count became."""
    units = np.array([unit_of(matrix, row, name, as_written=True) for row in range(matrix.num_cells)])
    unit = np.repeat(units, np.diff(matrix.indptr))
    multiple = np.rint(linear / unit)
    return np.where(np.isfinite(unit) & (multiple > 0), multiple * unit, linear)


def _divisors(matrix: CellMatrix, report: InputReport, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    if report.divide_by == "total" and report.total is not None:
        over = np.flatnonzero(sums > report.total * (1 + 1e-3))
        if len(over):
            raise over_total(matrix, int(over[0]), float(sums[over[0]]), report.total)
        return np.full(matrix.num_cells, report.total)
    if report.divide_by in ("obs", "unit") and matrix.obs_totals is not None:
        units = np.ones(matrix.num_cells)
        if report.divide_by == "unit":
            units = np.array([unit_of(matrix, row, report.transform) for row in range(matrix.num_cells)])
            unclear = np.flatnonzero(np.isnan(units))
            if len(unclear):
                raise unit_unclear(matrix, int(unclear[0]))
        small = np.flatnonzero(~(matrix.obs_totals * units >= sums * (1 - 1e-5)))
        if len(small):
            raise over_total(
                matrix, int(small[0]), float(sums[small[0]] / units[small[0]]), matrix.obs_totals[small[0]]
            )
        return np.asarray(matrix.obs_totals * units)
    if report.detected == "counts" and matrix.totals is not None:
        return matrix.totals
    return sums


def linear_sums(matrix: CellMatrix, name: str) -> NDArray[np.float64]:
    linear = INVERSES[name](matrix.data.astype(np.float64))
    return row_sums(linear, matrix.indices, matrix.indptr, matrix.num_genes)


def row_sums_of(matrix: CellMatrix) -> NDArray[np.float64]:
    """``[B]`` sums of the values of each cell."""
    return row_sums(matrix.data, matrix.indices, matrix.indptr, matrix.num_genes)


def row_sums(
    values: NDArray[np.floating], indices: NDArray[np.int32], indptr: NDArray[np.int64], num_columns: int
) -> NDArray[np.float64]:
    """``[B]`` sums in float64. The entries of a row are added in order, so a sum does not depend on other rows."""
    table = sparse.csr_matrix(
        (values.astype(np.float64, copy=False), indices, indptr), shape=(len(indptr) - 1, num_columns)
    )
    sums: NDArray[np.float64] = table @ np.ones(num_columns)
    return sums
