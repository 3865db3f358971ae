from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.thinning import require_counts, thin
from tests.training.evaluation.cells import dense, low_rank_counts, matrix_of


def test_thinning_splits_every_count() -> None:
    counts, _ = low_rank_counts()
    thinned = thin(matrix_of(counts), seed=0)
    np.testing.assert_array_equal(dense(thinned.matrix) + thinned.held_out.toarray(), counts)
    assert thinned.held_out.sum() / counts.sum() == pytest.approx(0.1, abs=0.01)


def test_fractional_values_are_refused() -> None:
    require_counts(matrix_of(np.eye(2)), "blood")
    with pytest.raises(InputError, match=r"GENE1.*cell0.*raw counts"):
        require_counts(matrix_of(np.array([[1.0, 0.5]])), "blood")
