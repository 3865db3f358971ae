from __future__ import annotations

import numpy as np
import pytest

from scpalm.training.evaluation.common import scvi_baseline
from scpalm.training.evaluation.common.scvi_baseline import Scvi
from scpalm.training.evaluation.common.source import NotApplicable
from tests.training.evaluation.cells import low_rank_counts, matrix_of

REASON = "scVI is an optional baseline: install the extra [compare]"


def test_the_same_seed_gives_the_same_ten_dimensions_and_batches_matter() -> None:
    pytest.importorskip("scvi", reason=REASON)
    # 143 cells have 129 training cells, so the second batch of an epoch would be a single cell.
    matrix = matrix_of(low_rank_counts(143, 30)[0])
    first = Scvi(max_epochs=1).embed("scvi", matrix)
    assert first.shape == (143, 10) and np.isfinite(first).all()
    np.testing.assert_array_equal(Scvi(max_epochs=1).embed("scvi", matrix), first)
    batches = ["one", "two", "three"] * 47 + ["one", "two"]
    assert not np.array_equal(Scvi(max_epochs=1, batches=batches).embed("scvi", matrix), first)
    assert not Scvi().zero_shot("scvi", "pbmc3k")


def test_values_that_are_not_counts_are_not_applicable() -> None:
    pytest.importorskip("scvi", reason=REASON)
    with pytest.raises(NotApplicable, match="raw counts"):
        Scvi().embed("scvi", matrix_of(np.full((4, 3), 0.5)))


def test_the_last_batch_of_an_epoch_has_no_single_cell() -> None:
    assert [cells for cells in range(100, 300) if scvi_baseline._single_left(cells)] == [143, 285]
