"""Made-up cells that resemble a bundle's corpus: the kit travels without data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.read_out.basis import Basis

# Spread of the scores around the mean cell, relative to the length of the mean.
_SPREAD = 0.6
_CHUNK = 256


@dataclass(frozen=True)
class Drawn:
    """B cells of a made-up tissue.

    Attributes:
        indptr: ``[B + 1]`` int64. gene_index: ``[entries]`` int32, ascending within a cell. counts: float32, >= 1.
        num_genes: G.
    """

    indptr: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    counts: NDArray[np.float32]
    num_genes: int

    def rows(self) -> Rows:
        """The cells as input of a session: log1p CP10K, all genes measured."""
        lengths = np.diff(self.indptr)
        totals = np.add.reduceat(self.counts, self.indptr[:-1])
        value = np.log1p(self.counts * np.repeat(1e4 / totals, lengths)).astype(np.float32)
        measured = (GeneSet(np.ones(self.num_genes, dtype=bool)),)
        return Rows(self.indptr, self.gene_index, value, measured, np.zeros(len(lengths), dtype=np.int32))

    def matrix(self, genes: list[str]) -> CellMatrix:
        """The cells as a file would have them: counts with gene names."""
        names = [f"cell{number}" for number in range(len(self.indptr) - 1)]
        return CellMatrix(self.indptr, self.gene_index, self.counts, genes, names)

    def repeated(self, times: int) -> Drawn:
        """The cells several times."""
        lengths = np.tile(np.diff(self.indptr), times)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Drawn(indptr, np.tile(self.gene_index, times), np.tile(self.counts, times), self.num_genes)


def draw(basis: Basis, num_cells: int, expressed: int, *, seed: int = 0) -> Drawn:
    """Cells with about ``expressed`` genes each, from the mean of a corpus and random scores on its components.

    Letters: B cells, G genes, R components. Counts follow a Poisson law, so their number differs from cell to cell.
    """
    random = np.random.default_rng(seed)
    mean = np.maximum(basis.mean, 0.0)  # [G], log1p of counts per 1e4 * value_scale
    vectors = basis.components[:, :32] * basis.scale[:32]  # [G, 32]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-12)
    spread = _SPREAD * np.linalg.norm(mean) / np.sqrt(1.0 + np.arange(vectors.shape[1]))
    parts: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]] = []
    for start in range(0, num_cells, _CHUNK):
        size = min(_CHUNK, num_cells - start)
        scores = random.standard_normal((size, vectors.shape[1])) * spread
        y = np.maximum(mean + scores @ vectors.T, 0.02 * mean)  # [size, G]
        profile = np.expm1(np.minimum(y, 8.0))
        profile /= profile.sum(axis=1, keepdims=True)
        depth = _depth(profile, expressed) * random.lognormal(0.0, 0.25, (size, 1))
        counts = random.poisson(profile * depth).astype(np.float32)
        counts[np.arange(size), profile.argmax(axis=1)] += 1  # no cell is empty
        cell, gene = np.nonzero(counts)
        parts.append((np.bincount(cell, minlength=size), gene.astype(np.int32), counts[cell, gene]))
    lengths, genes, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Drawn(indptr, genes, values, len(mean))


def _depth(profile: NDArray[np.float64], expressed: int) -> NDArray[np.float64]:
    """``[B, 1]``: counts per cell at which about ``expressed`` genes have one, by bisection."""
    wanted = min(expressed, 0.9 * profile.shape[1])
    low, high = np.full((len(profile), 1), 10.0), np.full((len(profile), 1), 1e7)
    for _ in range(24):
        middle = np.sqrt(low * high)
        found = -np.expm1(-profile * middle).sum(axis=1, keepdims=True)
        low, high = np.where(found < wanted, middle, low), np.where(found < wanted, high, middle)
    return np.sqrt(low * high)


def repeated(rows: Rows, num_cells: int) -> Rows:
    """The first ``num_cells`` of the rows, repeated as often as needed."""
    times = -(-num_cells // len(rows))
    return Rows.concat([rows] * times).slice(0, num_cells) if times > 1 else rows.slice(0, num_cells)
