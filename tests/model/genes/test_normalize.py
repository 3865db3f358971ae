from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.genes.declared import Declared
from scpalm.model.genes.linear import to_linear
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.normalize import COMPLETE_GENES, detect_input
from tests.model.small_genes import fillers, matrix_of

COUNTS = np.random.default_rng(0).poisson(3.0, (5, 12)).astype(np.float64) + 1
SHARES = COUNTS / COUNTS.sum(axis=1, keepdims=True)
GENES = fillers(12)


def test_whole_numbers_are_counts() -> None:
    report = detect_input(matrix_of(COUNTS, GENES))
    assert report.detected == "counts"
    assert report.as_dict() == {"detected": "counts", "why": report.why}


def test_large_fractions_are_expected_counts() -> None:
    report = detect_input(matrix_of(COUNTS * 33.3, GENES))
    assert (report.detected, report.expected) == ("counts", True)
    assert "expected counts" in report.why


def whole_transcriptome(values: np.ndarray) -> CellMatrix:
    """The values, with enough genes without counts to make a file that counts as complete."""
    genes = fillers(COMPLETE_GENES)
    return matrix_of(np.pad(values, ((0, 0), (0, len(genes) - values.shape[1]))), genes)


@pytest.mark.parametrize("total", [1e3, 1e4, 1e6])
def test_log1p_of_all_genes_is_undone_whatever_its_total(total: float) -> None:
    matrix = whole_transcriptome(np.log1p(SHARES * total))
    report = detect_input(matrix)
    assert (report.detected, report.rescale) == ("log", True)
    linear, totals = to_linear(matrix, report)
    np.testing.assert_allclose(linear / np.repeat(totals, 12), SHARES.ravel(), rtol=1e-4)


def test_log_values_of_some_genes_are_used_unchanged() -> None:
    matrix = matrix_of(np.log1p(SHARES * 1e4)[:, :3], GENES[:3])
    report = detect_input(matrix)
    assert (report.detected, report.rescale) == ("log", False)
    linear, totals = to_linear(matrix, report)
    np.testing.assert_array_equal(totals, 1e4)
    np.testing.assert_allclose(np.log1p(linear), matrix.data, rtol=1e-6)


def test_totals_of_counts_do_not_rescale_log_values() -> None:
    matrix = matrix_of(np.log1p(SHARES * 1e4)[:, :3], GENES[:3], totals=COUNTS.sum(axis=1).tolist())
    linear, totals = to_linear(matrix, detect_input(matrix))
    np.testing.assert_allclose(np.log1p(1e4 * linear / np.repeat(totals, 3)), matrix.data, rtol=1e-6)


@pytest.mark.parametrize("total", [3e3, 1e4, 1e6])
def test_detection_of_a_cell_does_not_depend_on_other_cells(total: float) -> None:
    values = np.log1p(SHARES * total * np.array([[1], [1], [3], [1], [2]]))
    for build in (whole_transcriptome, lambda some: matrix_of(some, GENES)):
        together, alone = build(values), build(values[:1])
        linear, totals = to_linear(together, detect_input(together))
        linear_alone, totals_alone = to_linear(alone, detect_input(alone))
        np.testing.assert_array_equal(linear[:12], linear_alone)
        assert totals[0] == totals_alone[0]


def test_given_totals_are_used_for_counts() -> None:
    matrix = matrix_of(COUNTS, GENES, totals=[100.0] * 5)
    np.testing.assert_array_equal(to_linear(matrix, detect_input(matrix))[1], 100.0)


def test_fractions_in_declared_counts_are_refused() -> None:
    table = COUNTS.copy()
    table[2, 7] = 1.5
    with pytest.raises(InputError) as caught:
        detect_input(matrix_of(table, GENES), "counts")
    error = caught.value
    assert (error.code, error.cell, error.gene) == ("not-counts", "c2", "GENE7")
    assert "1 of 60 values" in error.detail


def test_large_values_in_declared_logs_are_refused() -> None:
    table = np.log1p(COUNTS)
    table[1, 4] = 300.0
    with pytest.raises(InputError) as caught:
        detect_input(matrix_of(table, GENES), "log")
    assert (caught.value.code, caught.value.cell, caught.value.gene) == ("not-log", "c1", "GENE4")


@pytest.mark.parametrize("declared", ["counts", "log"])
def test_a_plausible_declaration_overrides_detection(declared: Declared) -> None:
    report = detect_input(matrix_of(COUNTS, GENES), declared)
    assert report.detected == declared
    assert "declared" in report.why


def test_empty_cells_are_counted_and_named() -> None:
    table = COUNTS.copy()
    table[[1, 3]] = 0
    matrix = matrix_of(table, GENES)
    with pytest.raises(InputError) as caught:
        to_linear(matrix, detect_input(matrix))
    assert (caught.value.code, caught.value.cell) == ("empty-cell", "c1")
    assert "2 cell(s)" in caught.value.detail and "'c3'" in caught.value.detail
