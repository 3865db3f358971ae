"""Fixed batch shapes. A cell is padded to a length that depends only on the cell, so that its result does too.

There are only a few shapes, because ONNX Runtime's memory arena grows without bound on arbitrary ones. Letters: B cells
in a batch, L padded length, N tokens, G genes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet, Rows

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
BATCHES = (16, 4, 1)
_MAX_ENTRIES = 65536  # B * L of one padded batch; limits the memory of the gathered tables


@dataclass(frozen=True)
class Padded:
    """One batch of fixed shape: the inputs of `InferenceNetwork`.

    Attributes:
        rows: ``[<= B]`` positions of its cells among the input rows.
        gene_index: ``[B, L]`` int32, padded with 0.
        value: ``[B, L]`` float32 log1p CP10K, padded with 0.
        measured_offset: ``[B, N]`` float32, sum of C over the genes that the cell's file measured.
        num_measured: ``[B, 1]`` float32, number of those genes.
    """

    rows: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]
    measured_offset: NDArray[np.float32]
    num_measured: NDArray[np.float32]

    def feed(self) -> dict[str, NDArray[np.generic]]:
        """The inputs by name."""
        return {
            "gene_index": self.gene_index,
            "value": self.value,
            "measured_offset": self.measured_offset,
            "num_measured": self.num_measured,
        }


class ZeroTable:
    """Sum of the offsets C over the measured genes of a file, ``[N]``; cached for the most recent gene sets."""

    _MAX_GENE_SETS = 256

    def __init__(self, offset: NDArray[np.float32]) -> None:
        self._offset = offset  # C [G, N]
        self._sums: dict[str, NDArray[np.float32]] = {}

    def of(self, gene_set: GeneSet) -> NDArray[np.float32]:
        """``[N]`` float32."""
        key = gene_set.digest
        if key not in self._sums:
            if len(self._sums) >= self._MAX_GENE_SETS:
                self._sums.pop(next(iter(self._sums)))
            self._sums[key] = self._offset[gene_set.measured].sum(axis=0, dtype=np.float64).astype(np.float32)
        return self._sums[key]


def lengths_for(num_genes: int) -> tuple[int, ...]:
    """The padded lengths that can occur in a model with ``num_genes`` genes."""
    needed = next((i for i, length in enumerate(LENGTHS) if length >= num_genes), len(LENGTHS) - 1)
    return LENGTHS[: needed + 1]


def batches_for(length: int) -> tuple[int, ...]:
    """Batch sizes used with a padded length, largest first."""
    return tuple(b for b in BATCHES if b == 1 or b * length <= _MAX_ENTRIES)


def split(rows: Rows, zeros: ZeroTable) -> Iterator[Padded]:
    """Group rows by padded length and cut each group into batches of fixed size."""
    lengths = rows.lengths()
    bucket = np.searchsorted(LENGTHS, lengths)
    for number in np.unique(bucket):
        members = np.flatnonzero(bucket == number)
        for size, part in _cut(members, batches_for(LENGTHS[number])):
            yield _pad(rows, part, size, LENGTHS[number], zeros)


def _cut(members: NDArray[np.int64], sizes: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    start = 0
    while start < len(members):
        remaining = len(members) - start
        # Take the largest batch that would be more than half full.
        size = next(s for s in sizes if s == 1 or 2 * remaining > s)
        yield size, members[start : start + size]
        start += size


def _pad(rows: Rows, members: NDArray[np.int64], size: int, length: int, zeros: ZeroTable) -> Padded:
    gene_index = np.zeros((size, length), dtype=np.int32)
    value = np.zeros((size, length), dtype=np.float32)
    sums, counts = [], []
    for position, row in enumerate(members):
        start, stop = rows.indptr[row], rows.indptr[row + 1]
        gene_index[position, : stop - start] = rows.gene_index[start:stop]
        value[position, : stop - start] = rows.value[start:stop]
        gene_set = rows.gene_sets[rows.gene_set_of_row[row]]
        sums.append(zeros.of(gene_set))
        counts.append(gene_set.num_measured)
    num_padding = size - len(members)
    offset = np.concatenate([np.stack(sums), np.zeros((num_padding, len(sums[0])), np.float32)])  # [B, N]
    num_measured = np.array(counts + [1] * num_padding, dtype=np.float32)[:, None]  # [B, 1]
    return Padded(members, gene_index, value, offset, num_measured)


def example(length: int, size: int, num_tokens: int) -> Padded:
    """A batch of this shape with one expressed gene per cell, to warm up with."""
    gene_index = np.zeros((size, length), dtype=np.int32)
    value = np.zeros((size, length), dtype=np.float32)
    value[:, 0] = 1.0
    zeros = np.zeros((size, num_tokens), np.float32)
    return Padded(np.arange(size), gene_index, value, zeros, np.full((size, 1), 2.0, np.float32))


def warm_shapes(run: Callable[[Padded], object], num_genes: int, num_tokens: int) -> None:
    """Run every shape that can occur once."""
    for length in lengths_for(num_genes):
        for size in batches_for(length):
            run(example(length, size, num_tokens))


def synthetic_rows(num_genes: int, num_cells: int = 64, expressed: int = 1000) -> Rows:
    """Random, seeded cells with ``expressed`` genes each, to measure the speed of a session."""
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
