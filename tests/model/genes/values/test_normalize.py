from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import Declaration, Declared
from scpalm.model.genes.values.linear import to_linear
from scpalm.model.genes.values.normalize import check_chunk, detect_input
from scpalm.model.genes.values.totals import COMPLETE_GENES
from tests.model.small_genes import cell_counts, fillers, matrix_of

COUNTS = cell_counts(6, 400)
GENES = fillers(400)
SUMS = COUNTS.sum(axis=1, keepdims=True)
CP10K = COUNTS / SUMS * 1e4
SELECTION = slice(0, 120)


def whole(values: NDArray[np.float64]) -> CellMatrix:
    """The values, with enough genes without counts to make a file that counts as complete."""
    genes = fillers(COMPLETE_GENES)
    return matrix_of(np.pad(values, ((0, 0), (0, len(genes) - values.shape[1]))), genes)


def part(values: NDArray[np.float64]) -> CellMatrix:
    return matrix_of(values[:, SELECTION], GENES[SELECTION])


def shares(matrix: CellMatrix, report: InputReport) -> NDArray[np.float64]:
    linear, divisors = to_linear(matrix, report)
    made: NDArray[np.float64] = linear / np.repeat(divisors, np.diff(matrix.indptr))
    return made


def refused(matrix: CellMatrix, declared: Declaration | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        detect_input(matrix, declared or Declaration())
    return caught.value


def test_whole_numbers_are_counts() -> None:
    report = detect_input(matrix_of(COUNTS, GENES))
    assert report.as_dict() == {"detected": "counts", "base": None, "total": None, "from": "X", "why": report.why}


@pytest.mark.parametrize(
    "name, values, base",
    [
        ("log", np.log1p(CP10K), "e"),
        ("log", np.log1p(CP10K * 100), "e"),
        ("log", np.log1p(COUNTS / SUMS * np.median(SUMS)), "e"),
        ("log", np.log2(CP10K + 1), "2"),
        ("log", np.log10(CP10K * 100 + 1), "10"),
        ("log", np.log1p(COUNTS), "e"),
        ("linear", CP10K, None),
        ("linear", COUNTS / SUMS, None),
        ("counts", COUNTS * 0.97, None),
    ],
    ids=["log1p cp10k", "log1p cpm", "median", "log2", "log10", "log of counts", "cp10k", "shares", "factor"],
)
@pytest.mark.parametrize("alone", [False, True], ids=["together", "alone"])
def test_all_genes_give_the_same_shares_however_they_are_transformed(
    name: str, values: NDArray[np.float64], base: str | None, alone: bool
) -> None:
    matrix, clean = whole(values), whole(COUNTS)
    if alone:
        matrix, clean = matrix.select(np.array([2])), clean.select(np.array([2]))
    report = detect_input(matrix)
    assert report.base == base
    assert report.detected == name or (alone and name == "counts")
    np.testing.assert_allclose(shares(matrix, report), shares(clean, detect_input(clean)), rtol=1e-4)


@pytest.mark.parametrize("alone", [False, True], ids=["together", "alone"])
@pytest.mark.parametrize("total", [1e4, 1e6])
def test_the_total_of_a_selection_is_the_one_that_makes_counts_whole(total: float, alone: bool) -> None:
    matrix = part(np.log2(COUNTS / SUMS * total + 1))
    matrix = matrix.select(np.array([1])) if alone else matrix
    report = detect_input(matrix)
    assert (report.base, report.total) == ("2", total)
    expected = (COUNTS / SUMS)[:, SELECTION][1:2] if alone else (COUNTS / SUMS)[:, SELECTION]
    np.testing.assert_allclose(shares(matrix, report), expected[expected > 0], rtol=1e-4)


def test_a_selection_that_does_not_show_its_total_is_a_question() -> None:
    values = part(np.log1p(COUNTS / SUMS * 2345.6))
    error = refused(values)
    assert (error.code, error.field) == ("total-needed", "total")
    report = detect_input(values, Declaration(total=2345.6))
    assert (report.divide_by, report.total) == ("total", 2345.6)


def with_totals(matrix: CellMatrix, totals: NDArray[np.float64]) -> CellMatrix:
    from dataclasses import replace

    return replace(matrix, obs_totals=totals)


@pytest.mark.parametrize(
    "values",
    [COUNTS, np.log1p(CP10K), CP10K / 7, np.log1p(COUNTS), COUNTS * 0.97],
    ids=["counts", "logs", "linear", "log of counts", "factor"],
)
def test_totals_of_the_file_are_those_of_whole_cells(values: NDArray[np.float64]) -> None:
    matrix = with_totals(part(values), SUMS.ravel())
    expected = (COUNTS / SUMS)[:, SELECTION]
    np.testing.assert_allclose(shares(matrix, detect_input(matrix)), expected[expected > 0], rtol=1e-4)


LOG_SUMS = np.log1p(CP10K).sum(axis=1)


@pytest.mark.parametrize("totals", [SUMS.ravel() * 0 + 1e6, SUMS.ravel() * 0.001, SUMS.ravel() * np.nan, LOG_SUMS * 9])
def test_totals_that_cannot_be_are_not_used(totals: NDArray[np.float64]) -> None:
    matrix = with_totals(part(COUNTS), totals)
    assert detect_input(matrix).divide_by == "sum"


def test_totals_of_a_selection_do_not_replace_those_that_logs_show() -> None:
    matrix = with_totals(part(np.log1p(CP10K)), COUNTS[:, SELECTION].sum(axis=1) + 1)
    report = detect_input(matrix)
    assert (report.divide_by, report.total) == ("total", 1e4)


def test_a_cell_that_does_not_show_its_counts_is_named_with_the_way_out() -> None:
    matrix = with_totals(part(np.log1p(COUNTS / SUMS * 2345.6)), SUMS.ravel())
    report = detect_input(matrix)
    assert report.divide_by == "unit"
    noise = 1 + 0.1 * np.random.default_rng(0).random(COUNTS.shape)
    unclear = with_totals(part(np.log1p(CP10K * noise)), SUMS.ravel())
    with pytest.raises(InputError, match="do not show") as caught:
        to_linear(unclear, report)
    assert (caught.value.code, caught.value.cell) == ("total-needed", "c0") and "nan" not in str(caught.value)


def test_given_totals_are_used_for_counts() -> None:
    matrix = matrix_of(COUNTS, GENES, totals=[1e5] * 6)
    np.testing.assert_array_equal(to_linear(matrix, detect_input(matrix))[1], 1e5)


def test_corrected_counts_are_counts() -> None:
    rng = np.random.default_rng(3)
    ambient = rng.dirichlet(np.full(400, 0.3)) * 0.05
    corrected = np.maximum(COUNTS - SUMS * ambient, 0)
    for matrix in (whole(corrected), matrix_of(corrected, GENES)):
        assert detect_input(matrix).detected == "counts"


def test_one_fraction_among_whole_numbers_does_not_make_logarithms() -> None:
    table = COUNTS.copy()
    table[0, np.flatnonzero(table[0])[3]] += 0.5
    assert detect_input(matrix_of(table, GENES)).detected == "counts"


@pytest.mark.parametrize(
    "values, code",
    [
        (np.sqrt(CP10K), "square-roots"),
        (np.log1p(np.log1p(CP10K)), "log-of-log"),
        ((COUNTS > 0) * 1.0, "binary-values"),
        (np.log1p(CP10K) / np.log1p(CP10K).std(axis=0), "unclear-values"),
    ],
)
def test_values_without_counts_behind_them_are_refused(values: NDArray[np.float64], code: str) -> None:
    assert refused(matrix_of(np.nan_to_num(values), GENES)).code == code


def test_counts_and_logs_in_one_file_are_refused() -> None:
    mixed = np.log1p(CP10K)
    mixed[3] = CP10K[3]
    error = refused(whole(mixed))
    assert (error.code, error.cell) == ("mixed-input", "c3")


@pytest.mark.parametrize(
    "declared, values, code",
    [
        ("counts", np.log1p(CP10K), "not-counts"),
        ("log", np.log2(CP10K + 1), "wrong-declaration"),
        ("log2", COUNTS, "not-log"),
        ("linear", np.log1p(CP10K), "wrong-declaration"),
        ("log", np.log1p(CP10K) + 30, "not-log"),
    ],
)
def test_a_declaration_that_the_values_contradict_is_refused(
    declared: Declared, values: NDArray[np.float64], code: str
) -> None:
    assert refused(whole(values), Declaration(declared)).code == code


def test_too_few_values_to_tell_counts_with_fractions() -> None:
    error = refused(matrix_of([[1.5, 2.0]], ["CD3E", "CD8A"]), Declaration("counts"))
    assert (error.code, error.gene) == ("not-counts", "CD3E")


def test_bulk_profiles_are_declared_by_name() -> None:
    rng = np.random.default_rng(1)
    tpm = rng.gamma(0.3, 60, (4, 300)) * (rng.random((4, 300)) < 0.8)
    values = matrix_of(np.log2(tpm + 1), GENES[:300])
    assert refused(values).code == "unclear-values"
    report = detect_input(values, Declaration("log2_tpm"))
    assert (report.base, report.total) == ("2", 1e6)
    assert refused(values, Declaration("log2", 1e3)).code == "over-total"


def test_later_cells_must_be_what_the_first_ones_were() -> None:
    counts, logs = whole(COUNTS), whole(np.log1p(CP10K))
    check_chunk(counts, detect_input(counts))
    check_chunk(logs, detect_input(logs))
    for matrix, report in ((logs, detect_input(counts)), (counts, detect_input(logs))):
        with pytest.raises(InputError) as caught:
            check_chunk(matrix, report)
        assert caught.value.code == "mixed-input"


def test_empty_cells_are_counted_and_named() -> None:
    table = COUNTS.copy()
    table[[1, 3]] = 0
    matrix = matrix_of(table, GENES)
    with pytest.raises(InputError) as caught:
        to_linear(matrix, detect_input(matrix))
    assert (caught.value.code, caught.value.cell) == ("empty-cell", "c1")
    assert "2 cell(s)" in caught.value.detail and "'c3'" in caught.value.detail
