from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from scpalm.training.corpus.census.choice import CellBatch, choose, count_tissues, quotas

NUM = 10_000
TISSUE = np.array(["blood", "lung"], dtype=object)[(np.arange(NUM) % 5 == 0).astype(int)]
DATASET = np.array(["b", "a"], dtype=object)[np.arange(NUM) // 5000]


def batches(size: int, *, backward: bool = False) -> Iterator[CellBatch]:
    joinid = np.arange(NUM) * 7
    starts = range(0, NUM, size)
    for start in reversed(starts) if backward else starts:
        part = slice(start, start + size)
        yield CellBatch(joinid[part], TISSUE[part], DATASET[part])


@pytest.mark.parametrize(
    "available, most, expected",
    [
        ({"blood": 100, "lung": 20, "eye": 3}, 33, {"blood": 15, "lung": 15, "eye": 3}),
        ({"blood": 100, "lung": 20, "eye": 3}, None, {"blood": 100, "lung": 20, "eye": 3}),
        ({"blood": 100, "lung": 20, "eye": 3}, 500, {"blood": 100, "lung": 20, "eye": 3}),
        ({"blood": 100, "lung": 100}, 11, {"blood": 5, "lung": 6}),
        ({"a": 9, "b": 9, "c": 9}, 1, {"a": 0, "b": 0, "c": 1}),
        ({}, 10, {}),
    ],
)
def test_tissues_give_equal_numbers_as_far_as_they_can(
    available: dict[str, int], most: int | None, expected: dict[str, int]
) -> None:
    assert quotas(available, most) == expected


def test_tissues_are_counted() -> None:
    assert count_tissues(batches(999)) == {"blood": 8000, "lung": 2000}


def test_the_choice_does_not_depend_on_the_batches() -> None:
    quota = {"blood": 300, "lung": 200}
    one = choose(batches(NUM), quota, seed=3)
    for size, backward in ((17, False), (999, True)):
        other = choose(batches(size, backward=backward), quota, seed=3)
        np.testing.assert_array_equal(one.joinid, other.joinid)
        np.testing.assert_array_equal(one.dataset, other.dataset)
    tissue = TISSUE[one.joinid // 7]
    assert {name: int((tissue == name).sum()) for name in quota} == quota
    assert (one.dataset == DATASET[one.joinid // 7]).all()
    assert one.dataset.tolist() == sorted(one.dataset)


def test_seeds_choose_different_cells_at_random() -> None:
    first, second = (choose(batches(500), {"blood": 2000, "lung": 0}, seed) for seed in (0, 1))
    common = len(set(first.joinid.tolist()) & set(second.joinid.tolist()))
    assert common == pytest.approx(500, abs=80)
    # Neighbours are not chosen together, and all parts of the census are.
    np.testing.assert_allclose(np.histogram(first.joinid, bins=4)[0], 500, atol=80)
    nearby = np.intersect1d(first.joinid + 7, first.joinid)
    assert len(nearby) == pytest.approx(2000 * 0.75 * 0.25, abs=80)


def test_all_cells_can_be_chosen() -> None:
    assert len(choose(batches(500), {"blood": 8000, "lung": 2000}, 0).joinid) == NUM
