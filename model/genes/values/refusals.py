"""Messages of refusals: what the values look like, and what to send or declare instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.declared import Declaration

_SEND_COUNTS = "Send raw counts: X, raw or a layer that holds them (layer=counts)."

_UNUSABLE = {
    "boolean": ("boolean-values", "The values are booleans: presence of a gene, not counts."),
    "binary": ("binary-values", "All values are the same: binarised counts, which tell presence only."),
    "ranked": ("ranked-values", "The values of each cell are ranks, not counts."),
    "binned": ("binned-values", "The values of each cell are spread evenly over a few numbers: bins, not counts."),
    "sqrt": ("square-roots", "The values are square roots of normalised counts."),
    "log of log": ("log-of-log", "The values are logarithms of logarithms: log1p was applied twice."),
    "dense": ("no-zeros", "The values have no zeros, as those of microarrays (RMA), imputation or embeddings."),
    "same values": (
        "same-values",
        "All cells have the same values, for different genes, as after quantile normalisation.",
    ),
    "pseudo-count": (
        "pseudo-count",
        "The values have no zeros, and most are the smallest: a number was added to all counts.",
    ),
    "imputed": ("imputed-values", "Each gene has values in all cells or in none, as after imputation or smoothing."),
}


def unusable(kind: str) -> InputError:
    """Values from which counts cannot be recovered with certainty."""
    code, detail = _UNUSABLE[kind]
    hint = _SEND_COUNTS
    if kind in ("dense", "imputed"):
        hint += " If these are bulk profiles, declare what they are (input=log2_tpm, input=tpm)."
    return InputError(code, detail, hint=hint, field="data")


def too_even(evidence: str) -> InputError:
    """Whole numbers that vary less than counts do."""
    return InputError(
        "compressed-values",
        f"All values are whole numbers, but they are too even to be counts: {evidence}. They look like rounded "
        "logarithms, bins, ranks or scaled values.",
        hint=f"{_SEND_COUNTS} If they are counts, say so: input=counts.",
        field="data",
    )


def cut_off(largest: int, number: int) -> InputError:
    """Values of which many are the largest: a limit was set to them."""
    return InputError(
        "cut-off-values",
        f"{number} values of the first cells are {largest}, the largest, and few are just below it: the values were "
        f"cut off at {largest}, or scaled gene by gene.",
        hint=f"{_SEND_COUNTS} If they are counts all the same, say so: input=counts.",
        field="data",
    )


def mixed(matrix: CellMatrix, row: int) -> InputError:
    """Cells of one file that are of different kinds."""
    cell = str(matrix.cells[row])
    return InputError(
        "mixed-input",
        f"The values of cell '{cell}' are of another kind (counts, logs) than those of other cells.",
        hint="Send raw counts for all cells, or files of one kind each.",
        field="data",
        cell=cell,
    )


def _first_fraction(matrix: CellMatrix) -> tuple[str, str, float, int]:
    fractions = np.flatnonzero(matrix.data != np.rint(matrix.data))
    entry = int(fractions[0]) if len(fractions) else 0
    gene = str(matrix.genes[matrix.indices[entry]])
    return matrix.cell_of_entry(entry), gene, float(matrix.data[entry]), len(fractions)


def contradiction(matrix: CellMatrix, declared: Declaration, found: str | None) -> InputError:
    """A declaration that the values contradict."""
    cell, gene, value, number = _first_fraction(matrix)
    if declared.name == "counts":
        seen = f"they look like {_name(found)}" if found not in (None, "linear") else "they are too few to tell"
        return InputError(
            "not-counts",
            f"Counts were declared, but gene '{gene}' in cell '{cell}' is {value:g}; {number} of {len(matrix.data)} "
            f"values are not whole numbers, and {seen}.",
            hint="Send raw counts, name the layer that holds them (layer=counts), or declare what the values are "
            "(input=linear, log, log2).",
            field="data",
            cell=cell,
            gene=gene,
        )
    return InputError(
        "wrong-declaration",
        f"The values were declared as {declared.name}, but they look like {_name(found)}.",
        hint="Leave out input, or declare what they are: counts, linear, log, log2, log10.",
        field="input",
    )


def _name(found: str | None) -> str:
    names = {
        "counts": "raw counts",
        "linear": "counts, or normalised values without a logarithm (input=counts, input=linear)",
        "log": "natural logarithms (input=log)",
        "log2": "logarithms of base 2 (input=log2)",
        "log10": "logarithms of base 10 (input=log10)",
        "sqrt": "square roots",
    }
    return names.get(found or "", "something else")


def not_logs(matrix: CellMatrix, declared: Declaration, entry: int) -> InputError:
    """A value too large for the declared logarithm."""
    cell, gene = matrix.cell_of_entry(entry), str(matrix.genes[matrix.indices[entry]])
    return InputError(
        "not-log",
        f"The values were declared as {declared.name}, but gene '{gene}' in cell '{cell}' is {matrix.data[entry]:g}, "
        "too large for a logarithm.",
        hint="Declare input=counts or input=linear, or leave it out.",
        field="data",
        cell=cell,
        gene=gene,
    )


def total_of_counts() -> InputError:
    """A total of normalised values that was declared for counts."""
    return InputError(
        "total-of-counts",
        "total= is what whole cells were brought to before a logarithm, but the values are counts.",
        hint="Leave it out. For counts of a selection of genes, give each cell's total in obs['total_counts'].",
        field="total",
    )


def over_total(matrix: CellMatrix, row: int, found: float, total: float, *, all_cells: bool = False) -> InputError:
    """A cell that sums to more than a whole cell can, or cells that all sum to something else."""
    cell = str(matrix.cells[row])
    if all_cells:
        return InputError(
            "wrong-declaration",
            f"Each cell sums to {found:.6g} before the logarithm, not to the declared {total:g}.",
            hint="Leave out total, or declare the right one.",
            field="total",
        )
    return InputError(
        "over-total",
        f"Cell '{cell}' sums to {found:.6g} before the logarithm, more than the {total:g} that a whole cell is said to "
        "sum to (10,000 for CP10K, 1,000,000 for CPM and TPM).",
        hint="Declare the right total (total=1e6) and base (input=log2), or correct the column of totals in obs.",
        field="total",
        cell=cell,
    )


def unit_unclear(matrix: CellMatrix, row: int) -> InputError:
    """A cell of a selection of genes, in which the value of a single count cannot be seen."""
    cell = str(matrix.cells[row])
    return InputError(
        "total-needed",
        f"The values of cell '{cell}' do not show what one count became, for example because they were rounded. So its "
        "total in obs cannot be compared with them.",
        hint="Send raw counts, or say what a whole cell sums to before the logarithm, such as input=log&total=1e4.",
        field="total",
        cell=cell,
    )


def total_needed(matrix: CellMatrix, base: str | None, sums: NDArray[np.float64]) -> InputError:
    """Normalised values of a selection of genes that do not show what whole cells sum to."""
    name = {None: "linear", "e": "log", "2": "log2", "10": "log10"}[base]
    kind = "normalised values" if base is None else f"logarithms (base {base})"
    return InputError(
        "total-needed",
        f"The values are {kind} of a selection of {matrix.num_gene_columns} genes, and do not show what a whole cell "
        f"summed to before: 10,000 (CP10K), 1,000,000 (CPM, TPM) or its median; the largest sum here is "
        f"{float(sums.max()):.4g}.",
        hint=f"Declare it, e.g. input={name}&total=1e4 or total=1e6, send all genes, or send raw counts.",
        field="total",
    )


def rounded(matrix: CellMatrix, decimals: int) -> InputError:
    """Logarithms that were written with too few decimals."""
    return InputError(
        "rounded-values",
        f"The logarithms were rounded to {decimals} decimals, and many of them are hardly larger than that: counts are "
        "lost.",
        hint=f"Write them with all digits, or send raw counts. {_SEND_COUNTS}",
        field="data",
    )


def undecided(matrix: CellMatrix) -> InputError:
    """Values that may be of several kinds."""
    largest = float(matrix.data.max(initial=0))
    if largest > 20:
        readings = (
            "corrected counts (input=counts) or normalised values such as TPM (input=tpm); scaled or smoothed ones "
        )
        readings += "are of no use"
    else:
        readings = (
            "corrected counts (input=counts) or logarithms (input=log for base e, log2 or log10; for a selection "
        )
        readings += "of genes with total=1e4 or 1e6, or input=log2_tpm and the like)"
    return InputError(
        "unclear-values",
        f"The values have fractions and reach {largest:.4g}, and what they are is not certain: {readings}.",
        hint="Declare it with input=, or send raw counts.",
        field="data",
    )
