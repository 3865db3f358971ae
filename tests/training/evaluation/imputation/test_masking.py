from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.count_table import select_genes
from scpalm.training.evaluation.imputation.masking import mask_positive
from tests.training.evaluation.cells import dense, low_rank_counts, matrix_of


def test_a_tenth_of_each_cells_positive_entries_is_hidden_and_nothing_else() -> None:
    counts, _ = low_rank_counts()
    matrix = matrix_of(counts)
    masked = mask_positive(matrix, seed=3)
    rest = dense(masked.matrix)
    hidden = np.zeros(counts.shape, bool)
    hidden[masked.cell, masked.gene] = True
    np.testing.assert_array_equal(hidden.sum(axis=1), np.floor(0.1 * (counts > 0).sum(axis=1)))
    assert (counts[hidden] > 0).all()
    np.testing.assert_array_equal(rest, np.where(hidden, 0, counts))
    totals = counts.sum(axis=1)
    np.testing.assert_allclose(masked.truth, np.log1p(1e4 * counts[hidden] / totals[masked.cell]))
    np.testing.assert_allclose(masked.matrix.row_totals(), rest.sum(axis=1))


def test_low_counts_are_hidden_more_often() -> None:
    counts = np.tile(np.repeat([1.0, 60.0], 50), (200, 1))
    masked = mask_positive(matrix_of(counts), seed=0)
    share = float((masked.gene < 50).mean())
    # Weights exp(-1/20) : exp(-60/20) = 19 : 1, drawn without replacement.
    assert 0.92 < share < 0.97


def test_the_mask_depends_on_the_seed() -> None:
    matrix = matrix_of(low_rank_counts()[0])
    first, again, other = (mask_positive(matrix, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.gene, again.gene)
    assert len(first.gene) != len(other.gene) or (first.gene != other.gene).any()


def test_the_selection_keeps_the_totals_of_all_genes() -> None:
    counts, _ = low_rank_counts()
    part = select_genes(matrix_of(counts), np.array([5, 2, 9]))
    assert part.genes == ["GENE5", "GENE2", "GENE9"]
    np.testing.assert_array_equal(dense(part), counts[:, [5, 2, 9]])
    np.testing.assert_array_equal(part.row_totals(), counts.sum(axis=1))


def test_sparse_cells_are_refused() -> None:
    with pytest.raises(InputError, match="positive entries"):
        mask_positive(matrix_of(np.eye(5)))
