from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scpalm.training.stages.contrastive import ClusterQueue, info_nce, pick_negatives


def vectors(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_info_nce_is_the_literal_formula(temperature: float) -> None:
    view, other = vectors(6), vectors(6, seed=1)
    negative = torch.rand(6, 6, generator=seeded()) < 0.5
    terms = []
    for i in range(6):
        positive = math.exp(cosine(view[i], other[i]) / temperature)
        rest = sum(
            math.exp(cosine(view[i], other[j]) / temperature) for j in range(6) if j != i and bool(negative[i, j])
        )
        terms.append(-math.log(positive / (positive + rest)))
    assert float(info_nce(view, other, negative, temperature)) == pytest.approx(sum(terms) / 6, rel=1e-5)


def test_a_cell_is_not_its_own_negative() -> None:
    view, other = vectors(6), vectors(6, seed=1)
    none, itself = torch.zeros(6, 6, dtype=torch.bool), torch.eye(6, dtype=torch.bool)
    assert float(info_nce(view, other, none, 0.1)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(view, other, itself, 0.1)) == pytest.approx(0, abs=1e-6)


def test_the_scale_of_the_vectors_does_not_matter() -> None:
    view, other, negative = vectors(6), vectors(6, seed=1), ~torch.eye(6, dtype=torch.bool)
    a, b = info_nce(view, other, negative, 0.1), info_nce(view * 7, other * 0.1, negative, 0.1)
    assert float(a) == pytest.approx(float(b), rel=1e-4)


@pytest.mark.parametrize("most", [1, 3, 8, 40, 100])
def test_negatives_come_from_other_clusters_and_are_limited(most: int) -> None:
    cluster = torch.randint(4, (40,), generator=seeded())
    negative = pick_negatives(cluster, most, seeded(1))
    others = cluster[:, None] != cluster[None, :]
    assert not (negative & ~others).any()
    assert torch.equal(negative.sum(1), others.sum(1).clamp(max=most))


def test_a_batch_of_one_cluster_has_no_negatives() -> None:
    assert not pick_negatives(torch.zeros(10, dtype=torch.int64), 4, seeded()).any()


def test_negatives_depend_on_the_seed() -> None:
    cluster = torch.arange(40) % 2
    first = pick_negatives(cluster, 5, seeded(1))
    assert torch.equal(first, pick_negatives(cluster, 5, seeded(1)))
    assert not torch.equal(first, pick_negatives(cluster, 5, seeded(2)))


def unit(h: Tensor) -> Tensor:
    return h / h.norm(dim=1, keepdim=True)


class TestQueue:
    def test_wraps_around_and_keeps_the_newest(self) -> None:
        queue, added = ClusterQueue(10, 5, 2), vectors(16)
        for start in range(0, 16, 4):
            queue.add(added[start : start + 4])
            assert queue.filled == min(start + 4, 10)
        assert queue.next == 6
        # Slots 0 to 5 hold the last six, slots 6 to 9 the four before them.
        expected = torch.cat([added[10:16], added[6:10]])
        torch.testing.assert_close(queue.vectors, unit(expected))

    def test_a_batch_larger_than_the_queue_leaves_its_end(self) -> None:
        queue, added = ClusterQueue(4, 5, 2), vectors(11)
        queue.add(added)
        assert queue.filled == 4
        torch.testing.assert_close(queue.vectors, unit(added[-4:]))

    def test_does_not_hold_on_to_gradients(self) -> None:
        queue, h = ClusterQueue(4, 5, 2), vectors(3).requires_grad_()
        queue.add(h * 2)
        assert not queue.vectors.requires_grad

    def test_k_means_finds_groups_that_are_there(self) -> None:
        centers = torch.eye(5)[:3] * 10
        kind = torch.arange(60) % 3
        points = centers[kind] + 0.3 * vectors(60)
        queue = ClusterQueue(100, 5, 3)
        queue.add(points)
        best = 0
        for seed in range(5):  # some starts of k-means fail
            queue.ready = False
            queue.refit(seeded(seed))
            cluster = queue.assign(points)
            found = {(int(c), int(k)) for c, k in zip(cluster, kind, strict=True)}
            best = max(best, int(len(found) == 3))
        assert best
        torch.testing.assert_close(queue.centers.norm(dim=1), torch.ones(3))

    def test_every_cluster_stays_in_use_and_finite_with_points_that_coincide(self) -> None:
        queue = ClusterQueue(20, 5, 4)
        queue.add(vectors(1).expand(20, -1))
        queue.refit(seeded())
        assert torch.isfinite(queue.centers).all()
        assert queue.ready

    def test_is_seeded(self) -> None:
        tables = []
        for seed in (0, 0, 1):
            queue = ClusterQueue(50, 5, 4)
            queue.add(vectors(50))
            queue.refit(seeded(seed))
            tables.append(queue.centers)
        assert torch.equal(tables[0], tables[1])
        assert not torch.equal(tables[0], tables[2])

    def test_resumes_from_its_saved_state(self) -> None:
        queue, other = ClusterQueue(50, 5, 4), ClusterQueue(50, 5, 4)
        queue.add(vectors(30))
        queue.refit(seeded())
        other.restore({k: v.clone() if isinstance(v, Tensor) else v for k, v in queue.state().items()})
        for one in (queue, other):
            one.add(vectors(30, seed=2))
            one.refit(seeded(3))
        assert torch.equal(queue.vectors, other.vectors)
        assert torch.equal(queue.assign(vectors(9)), other.assign(vectors(9)))
        assert (queue.filled, queue.next) == (other.filled, other.next)
