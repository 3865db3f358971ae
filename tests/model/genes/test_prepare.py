from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import Prepared, Preparer, prepare
from scpalm.model.genes.values.declared import Declaration, Declared
from tests.model.small_genes import fillers, matrix_of, small_vocabulary

VOCABULARY = small_vocabulary()
GENES = [*fillers(20), "CD3E", "ENSG00000000002", "CD20", "unknown_gene", "nothing"]
UNKNOWN = 2


def counts(cells: int = 9, seed: int = 0) -> NDArray[np.float64]:
    table = np.random.default_rng(seed).poisson(1.0, (cells, len(GENES))).astype(np.float64)
    table[:, 3] += 1
    return table


def permuted(matrix: CellMatrix, order: NDArray[np.int64]) -> CellMatrix:
    """The same cells with their columns in another order. The entries of a row keep their order, so are unsorted."""
    place = np.argsort(order)
    return replace(
        matrix, indices=place[matrix.indices].astype(np.int32), genes=[matrix.genes[int(column)] for column in order]
    )


def assert_same_rows(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.rows.indptr, other.rows.indptr)
    np.testing.assert_array_equal(one.rows.gene_index, other.rows.gene_index)
    np.testing.assert_array_equal(one.rows.value, other.rows.value)
    np.testing.assert_array_equal(one.rows.gene_sets[0].measured, other.rows.gene_sets[0].measured)


def dense(prepared: Prepared) -> NDArray[np.float32]:
    rows = prepared.rows
    out = np.zeros((len(rows), len(VOCABULARY)), np.float32)
    out[np.repeat(np.arange(len(rows)), rows.lengths()), rows.gene_index] = rows.value
    return out


def test_rows_are_log1p_of_ten_thousand_parts_of_all_counts_also_of_unknown_genes() -> None:
    table = counts()
    prepared = prepare(matrix_of(table, GENES), VOCABULARY)
    normal = np.log1p(table * 1e4 / table.sum(axis=1, keepdims=True))
    expected = np.zeros((len(table), len(VOCABULARY)))
    expected[:, 4:24] = normal[:, :20]
    expected[:, 0:3] = normal[:, 20:23]
    np.testing.assert_allclose(dense(prepared), expected, rtol=1e-6)
    assert prepared.cells == [f"c{i}" for i in range(len(table))]
    assert prepared.coverage.genes_matched == len(GENES) - UNKNOWN
    assert prepared.input.detected == "counts"


@pytest.mark.parametrize("kind", ["counts", "log", "expected"])
def test_the_order_of_the_input_genes_does_not_matter(kind: str) -> None:
    table = counts()
    table = {
        "counts": table,
        "log": np.log1p(table / table.sum(axis=1, keepdims=True) * 1e4),
        "expected": table * 33.3,
    }[kind]
    matrix = matrix_of(table, GENES)
    reference = prepare(matrix, VOCABULARY)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(GENES))
        assert_same_rows(prepare(permuted(matrix, order), VOCABULARY), reference)
    np.testing.assert_array_equal(np.diff(reference.rows.gene_index)[: reference.rows.indptr[1] - 1] > 0, True)


def test_zero_genes_are_measured_and_missing_genes_are_not() -> None:
    table = counts()
    table[:, 0] = 0
    with_zero = prepare(matrix_of(table, GENES), VOCABULARY)
    without = prepare(matrix_of(table[:, 1:], GENES[1:]), VOCABULARY)
    np.testing.assert_array_equal(dense(with_zero), dense(without))
    assert with_zero.rows.gene_sets[0].measured[4]
    assert not without.rows.gene_sets[0].measured[4]


def test_a_prepared_cell_does_not_depend_on_other_cells() -> None:
    table = counts(30)
    together = prepare(matrix_of(table, GENES), VOCABULARY).rows
    for i in range(len(table)):
        alone, part = prepare(matrix_of(table[i : i + 1], GENES), VOCABULARY).rows, together.slice(i, i + 1)
        np.testing.assert_array_equal(alone.gene_index, part.gene_index)
        np.testing.assert_array_equal(alone.value, part.value)


def test_explicit_zeros_are_not_expressed() -> None:
    matrix = matrix_of(counts(), GENES)
    stored = replace(matrix, data=np.where(matrix.indices == 3, 0, matrix.data).astype(np.float32))
    assert (prepare(stored, VOCABULARY).rows.value > 0).all()


def test_duplicate_genes_are_summed() -> None:
    # CD3E by symbol, with a prefix, by id and by a name from var_names_make_unique.
    genes = [*fillers(10), "CD3E", "GRCh38_CD3E", "ENSG00000000001.3", "CD3E-1"]
    table = np.random.default_rng(1).poisson(2.0, (4, len(genes))) + 1.0
    merged = np.hstack([table[:, :10], table[:, 10:].sum(axis=1, keepdims=True)])
    prepared = prepare(matrix_of(table, genes), VOCABULARY)
    assert_same_rows(prepared, prepare(matrix_of(merged, genes[:11]), VOCABULARY))
    assert (prepared.coverage.genes_matched, prepared.coverage.genes_of_model) == (14, 11)


def test_duplicate_genes_of_log_values_are_summed_as_counts() -> None:
    genes = [*fillers(10), "CD3E", "CD3E-1"]
    table = np.random.default_rng(1).poisson(2.0, (4, len(genes))) + 1.0
    log = np.log1p(table / table.sum(axis=1, keepdims=True) * 1e4)
    from_log = prepare(matrix_of(log, genes), VOCABULARY)
    assert from_log.input.detected == "log"
    np.testing.assert_allclose(dense(from_log), dense(prepare(matrix_of(table, genes), VOCABULARY)), rtol=1e-5)


def test_counts_and_their_log_values_give_the_same_cells() -> None:
    table = counts()
    log = np.log1p(table / table.sum(axis=1, keepdims=True) * 1e4)
    expected = dense(prepare(matrix_of(table, GENES), VOCABULARY))
    np.testing.assert_allclose(dense(prepare(matrix_of(log, GENES), VOCABULARY)), expected, rtol=1e-5)


def test_given_totals_of_a_gene_selection_are_used() -> None:
    table = counts()
    whole = prepare(matrix_of(table, GENES), VOCABULARY)
    part = prepare(matrix_of(table[:, :15], GENES[:15], totals=table.sum(axis=1).tolist()), VOCABULARY)
    np.testing.assert_array_equal(dense(part)[:, 4:19], dense(whole)[:, 4:19])


def fault(table: NDArray[np.float64], declared: Declared = "auto") -> InputError:
    with pytest.raises(InputError) as caught:
        prepare(matrix_of(table, GENES), VOCABULARY, Declaration(declared))
    return caught.value


def test_an_empty_cell_is_named() -> None:
    table = counts()
    table[4] = 0
    assert (fault(table).code, fault(table).cell) == ("empty-cell", "c4")


def test_a_cell_without_a_known_gene_is_named() -> None:
    table = counts()
    table[4, :-UNKNOWN] = 0
    table[4, -1] = 7
    error = fault(table)
    assert (error.code, error.cell) == ("no-known-gene-in-cell", "c4")


@pytest.mark.parametrize("value, code", [(-1.0, "negative-value"), (np.nan, "not-finite")])
def test_values_are_validated_first(value: float, code: str) -> None:
    table = counts()
    table[2, 5] = value
    error = fault(table)
    assert (error.code, error.cell, error.gene) == (code, "c2", "GENE5")


def test_fractions_where_counts_were_declared() -> None:
    table = counts()
    assert fault(np.log1p(table / table.sum(axis=1, keepdims=True) * 1e4), "counts").code == "not-counts"


class TestStreams:
    """All chunks of a file must hold the same kind of values as the first."""

    @staticmethod
    def preparer(first: NDArray[np.float64], declared: Declared = "auto") -> Preparer:
        preparer = Preparer(VOCABULARY, GENES, Declaration(declared))
        preparer.prepare(matrix_of(first, GENES))
        return preparer

    def test_chunks_equal_the_whole(self) -> None:
        table = counts(9)
        whole = dense(prepare(matrix_of(table, GENES), VOCABULARY))
        preparer = Preparer(VOCABULARY, GENES)
        parts = [dense(preparer.prepare(matrix_of(table[i : i + 2], GENES))) for i in range(0, 9, 2)]
        np.testing.assert_array_equal(np.vstack(parts), whole)

    def test_fractions_after_whole_numbers_are_refused(self) -> None:
        with pytest.raises(InputError) as caught:
            self.preparer(counts()).prepare(matrix_of(np.log1p(counts()), GENES))
        assert caught.value.code == "mixed-input"

    def test_counts_after_log_values_are_refused(self) -> None:
        with pytest.raises(InputError) as caught:
            self.preparer(np.log1p(counts())).prepare(matrix_of(counts() * 100, GENES))
        assert caught.value.code == "mixed-input"

    def test_counts_with_a_factor_may_be_small_later(self) -> None:
        later = self.preparer(counts() * 33.3).prepare(matrix_of(counts() * 0.1, GENES))
        assert later.input.detected == "counts"
