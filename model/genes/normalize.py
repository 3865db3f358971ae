"""Decide whether values are counts or logs, and convert either to log1p CP10K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix

Declared = Literal["auto", "counts", "log"]
SCALE = 1e4
# No log1p value is larger: e^20 is 485 million counts of one gene.
_LARGEST_LOG = 20.0
# A file with at least this many columns holds nearly all genes, so a cell's sum is its total. Fewer are a selection.
COMPLETE_GENES = 5000


@dataclass(frozen=True)
class InputReport:
    """What the values were classified as.

    Attributes:
        detected: ``counts`` or ``log``.
        why: the reason, in one sentence.
        rescale: whether the ``expm1`` values of each cell are rescaled to a sum of 10,000 (``log`` only).
        expected: whether these are expected counts, which may have fractions (``counts`` only).
    """

    detected: Literal["counts", "log"]
    why: str
    rescale: bool = False
    expected: bool = False

    def as_dict(self) -> dict[str, str]:
        return {"detected": self.detected, "why": self.why}


def detect_input(matrix: CellMatrix, declared: Declared = "auto") -> InputReport:
    """Classify the values of a validated matrix as counts or log values.

    Raises InputError if counts were declared but a value has a fraction, or if log values were declared but a value is
    too large.
    """
    values = matrix.data
    largest = float(values.max(initial=0.0))
    fractions = np.flatnonzero(values != np.rint(values))
    if declared == "counts":
        if len(fractions):
            entry = int(fractions[0])
            cell, gene = matrix.cell_of_entry(entry), str(matrix.genes[matrix.indices[entry]])
            raise InputError(
                "not-counts",
                f"Counts were declared, but gene '{gene}' in cell '{cell}' is {values[entry]:g}; "
                f"{len(fractions)} of {len(values)} values are not whole numbers.",
                hint="Send raw counts, name the layer that holds them (?layer=counts), or declare input=log.",
                field="data",
                cell=cell,
                gene=gene,
            )
        return InputReport("counts", "declared as counts, and every value is a whole number")
    if declared == "log" and largest > _LARGEST_LOG:
        entry = int(values.argmax())
        cell, gene = matrix.cell_of_entry(entry), str(matrix.genes[matrix.indices[entry]])
        raise InputError(
            "not-log",
            f"Log values were declared, but gene '{gene}' in cell '{cell}' is {largest:g}, "
            "too large for a log1p value.",
            hint="Declare input=counts, or leave input=auto.",
            field="data",
            cell=cell,
            gene=gene,
        )
    if declared == "auto" and not len(fractions):
        return InputReport("counts", "every value is a whole number")
    if declared == "auto" and largest > _LARGEST_LOG:
        return InputReport(
            "counts",
            f"values have fractions but reach {largest:g}, too large for log1p: "
            "treated as expected counts (normalised values without a logarithm give the same result)",
            expected=True,
        )
    origin = "declared as log values" if declared == "log" else f"values have fractions and stay under {_LARGEST_LOG:g}"
    # Decide from the genes, not from the values: a cell's result must not depend on other cells.
    if matrix.num_genes >= COMPLETE_GENES:
        return InputReport("log", f"{origin}: natural logs, each cell rescaled to a total of 10,000", rescale=True)
    return InputReport(
        "log",
        f"{origin}: used unchanged as log1p CP10K ({matrix.num_genes} genes are only a selection, so totals are "
        "unknown)",
    )


def to_linear(matrix: CellMatrix, report: InputReport) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear values ``[entries]``, which may be summed over duplicate genes, and totals ``[B]``.

    The model's input is ``log1p(1e4 * value / total)``. Raises InputError, which names the cell, if a cell is empty.
    """
    sums = row_sums(matrix.data, matrix.indices, matrix.indptr, matrix.num_genes)
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
    if report.detected == "counts":
        return matrix.data.astype(np.float64), sums if matrix.totals is None else matrix.totals
    linear = np.expm1(matrix.data.astype(np.float64))
    if not report.rescale:
        return linear, np.full(matrix.num_cells, SCALE)
    return linear, row_sums(linear, matrix.indices, matrix.indptr, matrix.num_genes)


def row_sums(
    values: NDArray[np.floating], indices: NDArray[np.int32], indptr: NDArray[np.int64], num_columns: int
) -> NDArray[np.float64]:
    """``[B]`` sums in float64. The entries of a row are added in order, so a sum does not depend on other rows."""
    table = sparse.csr_matrix(
        (values.astype(np.float64, copy=False), indices, indptr), shape=(len(indptr) - 1, num_columns)
    )
    sums: NDArray[np.float64] = table @ np.ones(num_columns)
    return sums
