"""Batches overlap after integration, types stay apart, and what was done is reported."""

from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.integration.integrate import WIDTH, integrate
from scpalm.model.integration.overlap import overlap
from scpalm.model.io.labels import Categories
from tests.model.integration.two_batches import NUM_COMPONENTS, Cells, agreement, shifted_cells

pytest.importorskip("harmonypy")


def test_batches_overlap_and_types_stay_apart() -> None:
    cells = shifted_cells()
    assert overlap(cells.embedding, cells.batches.codes, 2).max() == 0
    found = integrate(cells.embedding, NUM_COMPONENTS, cells.batches)
    assert found.values.shape == (240, WIDTH) and found.values.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)
    assert agreement(found.values, cells) > 0.98
    assert [batch.name for batch in found.report.batches] == ["b0", "b1"]
    assert all(batch.overlap_before == 0 and batch.overlap_after > 0.8 for batch in found.report.batches)
    assert found.report.centred and "centred" in found.report.method and not found.report.warnings


def test_the_same_cells_give_the_same_bits() -> None:
    cells = shifted_cells()
    one, two = (integrate(cells.embedding, NUM_COMPONENTS, cells.batches).values for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_batches_that_overlap_but_differ_in_composition_are_not_centred() -> None:
    cells = shifted_cells(400, shift=0.0)
    # Batch b0 keeps mostly type 0, and b1 mostly the others: centring would move type 0 onto them.
    rare = np.random.default_rng(2).random(400) < 0.15
    kept = np.where(cells.batches.codes == 0, cells.types == 0, cells.types != 0) | rare
    cells = cells.select(kept)
    found = integrate(cells.embedding, NUM_COMPONENTS, cells.batches)
    assert not found.report.centred and agreement(found.values, cells) > 0.95


def test_a_batch_of_other_types_and_a_small_batch_are_warned_about() -> None:
    cells = shifted_cells(300, batches=3)
    few = np.flatnonzero(cells.batches.codes == 2)[:10]
    kept = np.concatenate([np.flatnonzero(cells.batches.codes < 2), few])
    cells = cells.select(kept)
    report = integrate(cells.embedding, NUM_COMPONENTS, cells.batches).report
    assert any("'b2' has 10 cells" in text for text in report.warnings)


def test_fewer_cells_than_axes() -> None:
    cells = shifted_cells(20)
    values = integrate(cells.embedding, NUM_COMPONENTS, cells.batches).values
    assert values.shape == (20, WIDTH) and np.isfinite(values).all()


@pytest.mark.parametrize(
    ("batches", "code"),
    [
        (["a"] * 20, "one-batch"),
        (["a", "b"] * 9 + ["a", None], "no-batch"),
        ([f"cell{i}" for i in range(20)], "too-many-batches"),
    ],
)
def test_columns_that_are_no_batches_are_refused(batches: list[str | None], code: str) -> None:
    cells = shifted_cells(20)
    with pytest.raises(InputError) as caught:
        integrate(cells.embedding, NUM_COMPONENTS, Categories.of(batches))
    assert caught.value.code == code and caught.value.hint


def test_overlap_of_well_mixed_batches_is_one() -> None:
    random = np.random.default_rng(0)
    mixed = overlap(random.normal(size=(2000, 3)), random.integers(2, size=2000).astype(np.int32), 2)
    assert (mixed > 0.85).all()


def test_types_are_kept_at_the_cell_level() -> None:
    """An effect within types, such as a treatment that is not the batch, is still there."""
    cells = shifted_cells(400)
    random = np.random.default_rng(5)
    treated = random.random(400) < 0.5
    direction = np.linalg.qr(random.normal(size=(cells.embedding.shape[1], 1)))[0][:, 0]
    moved = cells.embedding + 0.6 * treated[:, None] * direction
    found = integrate(moved.astype(np.float32), NUM_COMPONENTS, cells.batches)
    with_effect = Cells(found.values, treated.astype(np.int64), cells.batches)
    assert agreement(found.values, with_effect) > 0.9
