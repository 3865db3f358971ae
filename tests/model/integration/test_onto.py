"""New cells are mapped onto an integrated reference, take over its labels, and far ones are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.integration.integrate import integrate
from scpalm.model.integration.onto import IntegratedReference, carry_labels, map_onto
from scpalm.model.io.labels import Categories
from tests.model.integration.two_batches import NUM_COMPONENTS, shifted_cells

pytest.importorskip("harmonypy")


@pytest.fixture(scope="module")
def reference() -> IntegratedReference:
    cells = shifted_cells(300)
    values = integrate(cells.embedding, NUM_COMPONENTS, cells.batches).values
    return IntegratedReference(cells.embedding, values, cells.batches, NUM_COMPONENTS)


def labels() -> Categories:
    return Categories.of([f"type{i}" for i in shifted_cells(300).types])


@pytest.mark.parametrize("types", [(0, 1, 2), (1,)])
def test_a_new_shifted_batch_gets_the_right_labels(reference: IntegratedReference, types: tuple[int, ...]) -> None:
    new = shifted_cells(90, batches=3, seed=8)
    chosen = (new.batches.codes == 2) & np.isin(new.types, types)
    new = new.select(chosen)
    mapped = map_onto(new.embedding, new.batches, reference)
    np.testing.assert_allclose(np.linalg.norm(mapped.values, axis=1), 1, atol=1e-6)
    codes, share = carry_labels(mapped, labels())
    assert (codes == new.types).mean() > 0.95 and share.mean() > 0.9
    np.testing.assert_array_equal(map_onto(new.embedding, new.batches, reference).values, mapped.values)


def test_cells_of_a_kind_that_the_reference_lacks_are_far(reference: IntegratedReference) -> None:
    known = shifted_cells(60, seed=9)
    noise = np.random.default_rng(0).normal(size=known.embedding.shape)
    usual = map_onto(known.embedding, known.batches, reference).distance.mean()
    far = map_onto((known.embedding + 3 * noise).astype(np.float32), known.batches, reference).distance.mean()
    assert usual < 1.5 and far > 1.8 * usual


def test_another_width_is_refused(reference: IntegratedReference) -> None:
    with pytest.raises(InputError, match="has shape"):
        IntegratedReference(reference.embedding, reference.integrated[:, :7], reference.batches, NUM_COMPONENTS)
