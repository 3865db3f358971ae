"""Fixed batch shapes. A cell is padded to a length that depends only on the cell, so that its result does too.

There are only a few shapes, because ONNX Runtime's memory arena grows without bound on arbitrary ones. The cells of a
batch share one gene set. Letters: B cells in a batch, L padded length, G genes, R components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.read_out.basis import Correction
from scpalm.model.read_out.corrections import Corrections

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True)
class Shapes:
    """The batch sizes of a kind of device.

    Attributes:
        batches: batch sizes, largest first; the last one is 1.
        max_entries: most B * L of a padded batch.
        decoded: cells per run of the decoder.
        one_per_length: use only the largest batch that fits a length.
    """

    batches: tuple[int, ...]
    max_entries: int
    decoded: int
    one_per_length: bool = False

    def for_length(self, length: int) -> tuple[int, ...]:
        """Batch sizes used with a padded length, largest first."""
        fitting = tuple(b for b in self.batches if b == 1 or b * length <= self.max_entries)
        return fitting[:1] if self.one_per_length else fitting

    @property
    def for_encoder(self) -> tuple[int, ...]:
        """Batch sizes of the token encoders, largest first."""
        return self.batches[:1] if self.one_per_length else self.batches


# The gathered rows of the table [B, L, R] stay in the cache of a core, which is twice as fast on 1,000 genes.
CPU_SHAPES = Shapes((16, 4, 1), 4096, 16)
# A GPU rounds differently in batches of another size, and has time for padding.
GPU_SHAPES = Shapes((64, 16, 4, 1), 64 * 4096, 64, one_per_length=True)


@dataclass(frozen=True)
class Padded:
    """One batch of fixed shape: the inputs of `EmbeddingNetwork`.

    Attributes:
        rows: ``[<= B]`` positions of its cells among the input rows.
        gene_index: ``[B, L]`` int32, padded with 0.
        value: ``[B, L]`` float32 log1p CP10K, padded with 0.
        correction: for the genes that their files measured.
    """

    rows: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]
    correction: Correction

    def feed(self) -> dict[str, NDArray[np.generic]]:
        """The inputs by name."""
        return {
            "gene_index": self.gene_index,
            "value": self.value,
            "center": self.correction.center,
            "solve": self.correction.solve,
            "log_measured": np.array([[self.correction.log_measured]], dtype=np.float32),
        }


def lengths_for(num_genes: int) -> tuple[int, ...]:
    """The padded lengths that can occur in a model with ``num_genes`` genes."""
    needed = next((i for i, length in enumerate(LENGTHS) if length >= num_genes), len(LENGTHS) - 1)
    return LENGTHS[: needed + 1]


def split(rows: Rows, corrections: Corrections, shapes: Shapes = CPU_SHAPES) -> Iterator[Padded]:
    """Group rows by gene set and padded length, and cut each group into batches of fixed size."""
    bucket = np.searchsorted(LENGTHS, rows.lengths())
    for number, gene_set in enumerate(rows.gene_sets):
        of_set = np.flatnonzero(rows.gene_set_of_row == number)
        if not len(of_set):
            continue
        correction = corrections.of(gene_set)
        for place in np.unique(bucket[of_set]):
            members = of_set[bucket[of_set] == place]
            for size, part in cut(members, shapes.for_length(LENGTHS[place])):
                yield _pad(rows, part, (size, LENGTHS[place]), correction)


def cut(members: NDArray[np.int64], sizes: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut rows into batches of these sizes, largest first; a batch is more than half full if a smaller one exists."""
    start = 0
    while start < len(members):
        remaining = len(members) - start
        size = next((s for s in sizes if 2 * remaining > s), sizes[-1])
        yield size, members[start : start + size]
        start += size


def _pad(rows: Rows, members: NDArray[np.int64], shape: tuple[int, int], correction: Correction) -> Padded:
    gene_index = np.zeros(shape, dtype=np.int32)
    value = np.zeros(shape, dtype=np.float32)
    for position, row in enumerate(members):
        start, stop = rows.indptr[row], rows.indptr[row + 1]
        gene_index[position, : stop - start] = rows.gene_index[start:stop]
        value[position, : stop - start] = rows.value[start:stop]
    return Padded(members, gene_index, value, correction)


def example(length: int, size: int, num_components: int) -> Padded:
    """A batch of this shape with one expressed gene per cell, to warm up with."""
    gene_index = np.zeros((size, length), dtype=np.int32)
    value = np.zeros((size, length), dtype=np.float32)
    value[:, 0] = 1.0
    correction = Correction(np.ones(num_components, np.float32), np.eye(num_components, dtype=np.float32), 0.0)
    return Padded(np.arange(size), gene_index, value, correction)


def warm_shapes(run: Callable[[Padded], object], num_genes: int, num_components: int, shapes: Shapes) -> None:
    """Run every shape that can occur once."""
    for length in lengths_for(num_genes):
        for size in shapes.for_length(length):
            run(example(length, size, num_components))


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
