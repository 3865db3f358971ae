"""Choose cells at random, balanced by tissue, from a stream of cells that may not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CellBatch:
    """Some cells of a query. joinid: ``[B]`` int64. tissue, dataset: ``[B]`` str."""

    joinid: NDArray[np.int64]
    tissue: NDArray[np.object_]
    dataset: NDArray[np.object_]


@dataclass(frozen=True)
class Chosen:
    """The chosen cells, ordered by data set and number.

    Attributes:
        joinid: ``[n]`` int64. dataset: ``[n]`` str.
    """

    joinid: NDArray[np.int64]
    dataset: NDArray[np.object_]


def count_tissues(batches: Iterable[CellBatch]) -> dict[str, int]:
    """Cells of each tissue, by name."""
    found: dict[str, int] = {}
    for batch in batches:
        for tissue, count in zip(*np.unique(batch.tissue.astype(str), return_counts=True), strict=True):
            found[str(tissue)] = found.get(str(tissue), 0) + int(count)
    return dict(sorted(found.items()))


def quotas(available: Mapping[str, int], max_cells: int | None) -> dict[str, int]:
    """Cells to take from each tissue: equal numbers, and what small tissues cannot give from the others.

    >>> quotas({"blood": 100, "lung": 20, "eye": 3}, 33)
    {'blood': 15, 'lung': 15, 'eye': 3}
    """
    left = sum(available.values()) if max_cells is None else max_cells
    taken = {}
    smallest_first = sorted(available, key=lambda name: (available[name], name))
    for number, name in enumerate(smallest_first):
        taken[name] = min(available[name], left // (len(smallest_first) - number))
        left -= taken[name]
    return {name: taken[name] for name in available}


def choose(batches: Iterable[CellBatch], quota: Mapping[str, int], seed: int) -> Chosen:
    """The cells with the lowest random numbers of each tissue.

    A cell's random number depends only on the seed and its joinid. So the choice does not depend on the size or order
    of the batches, and memory holds at most twice the chosen cells and one batch.
    """
    kept = {tissue: _Lowest(count) for tissue, count in quota.items() if count}
    for batch in batches:
        random = _random_numbers(batch.joinid, seed)
        for tissue, lowest in kept.items():
            at = np.flatnonzero(batch.tissue == tissue)
            if len(at):
                lowest.add(random[at], batch.joinid[at], batch.dataset[at])
    parts = [lowest.result() for lowest in kept.values()]
    joinid = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in parts)])
    dataset = np.concatenate([np.zeros(0, object), *(names for _, names in parts)])
    order = np.lexsort((joinid, dataset.astype(str)))
    return Chosen(joinid[order], dataset[order])


class _Lowest:
    """The ``count`` cells with the lowest random numbers so far."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._random = np.zeros(0, np.uint64)
        self._joinid = np.zeros(0, np.int64)
        self._dataset = np.zeros(0, object)

    def add(self, random: NDArray[np.uint64], joinid: NDArray[np.int64], dataset: NDArray[np.object_]) -> None:
        self._random = np.concatenate([self._random, random])
        self._joinid = np.concatenate([self._joinid, joinid])
        self._dataset = np.concatenate([self._dataset, dataset])
        if len(self._random) > 2 * self._count:
            self._shrink()

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        self._shrink()
        return self._joinid, self._dataset

    def _shrink(self) -> None:
        lowest = np.lexsort((self._joinid, self._random))[: self._count]
        self._random, self._joinid, self._dataset = self._random[lowest], self._joinid[lowest], self._dataset[lowest]


def _random_numbers(joinid: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """``[B]`` splitmix64 (Steele, Lea and Flood 2014) of seed and joinid."""
    start = np.random.SeedSequence(seed & 0xFFFFFFFFFFFFFFFF).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        z = start + joinid.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
