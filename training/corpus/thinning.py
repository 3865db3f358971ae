"""Thin or split a cell's counts at random, as if it had been sequenced less deeply; reproducible in any process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.values.linear import SCALE

# Gene indices and values (log1p CP10K) of one cell.
Cell = tuple[NDArray[np.int32], NDArray[np.float32]]

# Shares are multiples of 1 / 256, so that a coin toss needs 8 random bits.
_STEPS = 256
# Counts up to 8 are eight coins in a byte; masks[n] has n bits set.
_COINS = 8
_MASKS = np.array([(1 << n) - 1 for n in range(_COINS + 1)], dtype=np.uint8)


class Streams:
    """Random numbers of each cell of a batch, from only a key and the cell's number.

    A cell's counts then do not depend on the cells before it, the process or the part of the batch. One Philox
    generator is moved to the requested cell, which costs a tenth of creating a generator.

    Args:
        key: numbers that identify this batch (seed, step, purpose).
        first: number of the cell at ``streams[0]``.
    """

    def __init__(self, *key: int, first: int = 0) -> None:
        self._key = np.random.SeedSequence(key).generate_state(2, np.uint64).astype(np.uint64, copy=False)
        self._philox = np.random.Philox(key=self._key)
        self._generator = np.random.Generator(self._philox)
        self._first = first

    def __getitem__(self, cell: int) -> np.random.Generator:
        """The generator, at the start of the cell's numbers. All cells share it: use one cell at a time."""
        self._philox.state = {
            "bit_generator": "Philox",
            # The lower half counts the numbers drawn for this cell.
            "state": {"counter": np.array([0, 0, self._first + cell, 0], np.uint64), "key": self._key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator


def split_counts(
    genes: NDArray[np.int32], values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> tuple[Cell, Cell]:
    """Give each count to the first cell with probability ``share``, else to the second; normalise both again.

    A cell whose counts would all go to one side is returned unchanged on both sides.

    Args:
        total: counts of the cell over all genes of its file. share: rounded to a multiple of 1 / 256.
    """
    counts, first, (unknown, first_unknown) = _share_out(values, total, share, rng)
    second = counts - first
    if not first.any() or not second.any():
        return (genes, values), (genes, values)
    return (
        _normalised(genes, first, int(first.sum()) + first_unknown),
        _normalised(genes, second, int(second.sum()) + unknown - first_unknown),
    )


def thin_counts(
    genes: NDArray[np.int32], values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> Cell:
    """The first of the two cells of ``split_counts``."""
    counts, first, (_, first_unknown) = _share_out(values, total, share, rng)
    kept = int(first.sum())
    if kept in (0, int(counts.sum())):
        return genes, values
    return _normalised(genes, first, kept + first_unknown)


def _share_out(
    values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[int, int]]:
    """Counts, the first cell's part of them, and for genes outside the vocabulary (all, the first cell's part)."""
    counts = np.expm1(values, dtype=np.float64)
    counts *= total / SCALE
    whole = np.rint(counts, out=counts).astype(np.int32)
    first = binomial(whole, share, rng)
    unknown = max(round(total) - int(whole.sum()), 0)
    return whole, first, (unknown, int(rng.binomial(unknown, round(share * _STEPS) / _STEPS)))


def binomial(counts: NDArray[np.int32], share: float, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw how many of each count are kept, each with probability ``share`` (rounded to a multiple of 1 / 256).

    A count up to 8 is a byte of coins. A coin is kept when its 8 random bits, read as a number, are below
    ``256 * share``. The comparison goes bit by bit from the lowest, for all coins of all genes at once.
    ``Generator.binomial`` takes ten times as long for such counts; it draws the few larger ones.
    """
    below = round(share * _STEPS)
    if below in (0, _STEPS):
        return counts * (below // _STEPS)
    planes = rng.bit_generator.random_raw(len(counts)).astype("<u8", copy=False).view(np.uint8).reshape(8, -1)
    heads = np.zeros(len(counts), np.uint8)
    for bit, plane in enumerate(planes):
        if below >> bit & 1:
            heads |= plane
        else:
            heads &= plane
    heads &= _MASKS.take(counts, mode="clip")
    kept = np.bitwise_count(heads).astype(np.int32)
    if counts.max(initial=0) > _COINS:
        large = np.flatnonzero(counts > _COINS)
        kept[large] = rng.binomial(counts[large], below / _STEPS)
    return kept


def _normalised(genes: NDArray[np.int32], counts: NDArray[np.int32], total: int) -> Cell:
    kept = counts.nonzero()[0]
    counts = counts.take(kept)
    most = int(counts.max())
    if most > len(counts):
        return genes.take(kept), np.log1p(counts * (SCALE / total)).astype(np.float32)
    # Many genes share few different counts: look their logarithms up in a table.
    table = np.log1p(np.arange(most + 1) * (SCALE / total)).astype(np.float32)
    return genes.take(kept), table.take(counts)
