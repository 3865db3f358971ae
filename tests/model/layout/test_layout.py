"""The layout keeps groups of cells together, as well as umap-learn does, and always the same way."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.layout import layout
from scpalm.model.layout.layout import LayoutOptions, lay_out

NUM_GROUPS = 6


def groups(num_cells: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cells around one point for each group, and the groups."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=3.0, size=(NUM_GROUPS, 30))
    group = rng.integers(NUM_GROUPS, size=num_cells)
    return (centres[group] + rng.normal(size=(num_cells, 30))).astype(np.float32), group


def agreement(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


def nearest_same(positions: NDArray[np.float32], group: NDArray[np.int64]) -> float:
    """Share of cells whose nearest cell in the layout is of their group."""
    from scpalm.model.neighbors import nearest

    return float((group[nearest(positions, 1).index[:, 0]] == group).mean())


def test_groups_stay_together_and_are_the_clusters() -> None:
    embedding, group = groups(900)
    shares: list[float] = []
    found = lay_out(embedding, LayoutOptions(), shares.append)
    assert found.positions.shape == (900, 2) and found.positions.dtype == np.float32
    assert nearest_same(found.positions, group) > 0.99
    assert agreement(found.clusters, group) > 0.99
    sizes = np.bincount(found.clusters)
    assert (np.diff(sizes) <= 0).all(), "cluster 0 is the largest"
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_the_same_cells_get_the_same_bits() -> None:
    embedding, _ = groups(300)
    one, other = (lay_out(embedding, LayoutOptions()) for _ in range(2))
    assert one.positions.tobytes() == other.positions.tobytes()
    assert one.clusters.tobytes() == other.clusters.tobytes()


def test_resolution_and_seed_have_an_effect() -> None:
    embedding, _ = groups(300)
    coarse, fine = (lay_out(embedding, LayoutOptions(resolution=r)).clusters.max() for r in (0.5, 5.0))
    assert fine > coarse
    other = lay_out(embedding, LayoutOptions(seed=1))
    assert not np.array_equal(other.positions, lay_out(embedding, LayoutOptions()).positions)


def test_of_many_cells_a_sample_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_CELLS", 400)
    monkeypatch.setattr(layout, "FEW_CELLS", 300)
    embedding, group = groups(1200)
    shares: list[float] = []
    found = lay_out(embedding, LayoutOptions(), shares.append)
    assert found.num_laid_out == 400 and shares[-1] == 1.0
    assert nearest_same(found.positions, group) > 0.98
    assert agreement(found.clusters, group) > 0.97


@pytest.mark.parametrize("num_cells", [1, 2, 3, 4, 10])
def test_few_cells(num_cells: int) -> None:
    found = lay_out(groups(num_cells)[0], LayoutOptions())
    assert found.positions.shape == (num_cells, 2) and np.isfinite(found.positions).all()
    assert found.clusters.shape == (num_cells,)


def test_equal_cells_have_finite_positions() -> None:
    found = lay_out(np.ones((50, 8), np.float32), LayoutOptions())
    assert np.isfinite(found.positions).all()
