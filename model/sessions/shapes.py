"""Fixed batch shapes: every cell runs in the same shape alone and in company, which is what makes its result the same.

ONNX Runtime's arena grows without end on free shapes, so there are only a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet, Rows

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
BATCHES = (16, 4, 1)
_MOST_ENTRIES = 65536  # of one padded batch: bounds the gathered tables


@dataclass(frozen=True)
class Padded:
    """One run of fixed shape.

    Attributes:
        rows: ``[<= B]`` which rows these are. gene_index, value: ``[B, L]``.
        measured_offset: ``[B, N]``. num_measured: ``[B, 1]``.
    """

    rows: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]
    measured_offset: NDArray[np.float32]
    num_measured: NDArray[np.float32]

    def feed(self) -> dict[str, NDArray[np.generic]]:
        return {
            "gene_index": self.gene_index,
            "value": self.value,
            "measured_offset": self.measured_offset,
            "num_measured": self.num_measured,
        }


class ZeroTable:
    """What the measured genes of a file say when unexpressed, ``sum of C [N]``; kept for the last few gene sets."""

    _MOST = 256

    def __init__(self, offset: NDArray[np.float32]) -> None:
        self._offset = offset  # C [G, N]
        self._sums: dict[str, NDArray[np.float32]] = {}

    def of(self, gene_set: GeneSet) -> NDArray[np.float32]:
        key = gene_set.digest
        if key not in self._sums:
            if len(self._sums) >= self._MOST:
                self._sums.pop(next(iter(self._sums)))
            self._sums[key] = self._offset[gene_set.measured].sum(axis=0, dtype=np.float64).astype(np.float32)
        return self._sums[key]


def lengths_for(num_genes: int) -> tuple[int, ...]:
    """The padded lengths that occur in a model of ``num_genes``."""
    needed = next((i for i, length in enumerate(LENGTHS) if length >= num_genes), len(LENGTHS) - 1)
    return LENGTHS[: needed + 1]


def batches_for(length: int) -> tuple[int, ...]:
    """Batch sizes used with a padded length, largest first."""
    return tuple(b for b in BATCHES if b == 1 or b * length <= _MOST_ENTRIES)


def split(rows: Rows, zeros: ZeroTable) -> Iterator[Padded]:
    """Rows grouped by padded length, groups cut into fixed batches; a cell's length never depends on its company."""
    lengths = rows.lengths()
    bucket = np.searchsorted(LENGTHS, lengths)
    for number in np.unique(bucket):
        members = np.flatnonzero(bucket == number)
        for size, part in _cut(members, batches_for(LENGTHS[number])):
            yield _pad(rows, part, size, LENGTHS[number], zeros)


def _cut(members: NDArray[np.int64], sizes: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    start = 0
    while start < len(members):
        left = len(members) - start
        # The largest batch that is at least half full.
        size = next(s for s in sizes if s == 1 or 2 * left > s)
        yield size, members[start : start + size]
        start += size


def _pad(rows: Rows, members: NDArray[np.int64], size: int, length: int, zeros: ZeroTable) -> Padded:
    gene_index = np.zeros((size, length), dtype=np.int32)
    value = np.zeros((size, length), dtype=np.float32)
    sums, counts = [], []
    for at, row in enumerate(members):
        start, stop = rows.indptr[row], rows.indptr[row + 1]
        gene_index[at, : stop - start] = rows.gene_index[start:stop]
        value[at, : stop - start] = rows.value[start:stop]
        gene_set = rows.gene_sets[rows.gene_set_of_row[row]]
        sums.append(zeros.of(gene_set))
        counts.append(gene_set.num_measured)
    filler = size - len(members)
    offset = np.concatenate([np.stack(sums), np.zeros((filler, len(sums[0])), np.float32)])
    number = np.array(counts + [1] * filler, dtype=np.float32)[:, None]
    return Padded(members, gene_index, value, offset, number)


def example(length: int, size: int, num_tokens: int) -> Padded:
    """A batch of this shape with one expressed gene a cell, for warming up."""
    gene_index = np.zeros((size, length), dtype=np.int32)
    value = np.zeros((size, length), dtype=np.float32)
    value[:, 0] = 1.0
    zeros = np.zeros((size, num_tokens), np.float32)
    return Padded(np.arange(size), gene_index, value, zeros, np.full((size, 1), 2.0, np.float32))


def warm_shapes(run: Callable[[Padded], object], num_genes: int, num_tokens: int) -> None:
    """Run every shape once."""
    for length in lengths_for(num_genes):
        for size in batches_for(length):
            run(example(length, size, num_tokens))


def made_up_rows(num_genes: int, num_cells: int = 64, expressed: int = 1000) -> Rows:
    """Seeded cells of ``expressed`` genes each, to measure a session's speed with."""
    random = np.random.default_rng(0)
    expressed = min(expressed, num_genes)
    genes = [np.sort(random.choice(num_genes, expressed, replace=False)) for _ in range(num_cells)]
    return Rows(
        np.arange(num_cells + 1, dtype=np.int64) * expressed,
        np.concatenate(genes).astype(np.int32),
        random.exponential(1.0, num_cells * expressed).astype(np.float32),
        (GeneSet(np.ones(num_genes, bool)),),
        np.zeros(num_cells, np.int32),
    )
