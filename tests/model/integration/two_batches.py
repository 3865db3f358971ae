"""Made-up embeddings of three cell types in two batches that are shifted against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.io.labels import Categories

NUM_COMPONENTS, WIDTH = 12, 20


@dataclass(frozen=True, eq=False)
class Cells:
    embedding: NDArray[np.float32]
    types: NDArray[np.int64]
    batches: Categories

    def select(self, rows: NDArray[np.generic]) -> Cells:
        names = np.array(self.batches.names)[self.batches.codes[rows]]
        return Cells(self.embedding[rows], self.types[rows], Categories.of(names))


def shifted_cells(num_cells: int = 240, *, shift: float = 1.5, seed: int = 0, batches: int = 2) -> Cells:
    """``shift``: length of the difference between batches; types are 1.4 apart, and the noise is 0.05 per axis."""
    random = np.random.default_rng(seed)
    center = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, 8)))[0].T  # 3 types, up to 5 batches
    types, batch = random.integers(3, size=num_cells), random.integers(batches, size=num_cells)
    offset = center[3:] * shift
    rows = center[types] + offset[batch] + random.normal(0, 0.05, (num_cells, WIDTH))
    return Cells(rows.astype(np.float32), types, Categories.of([f"b{i}" for i in batch]))


def agreement(values: NDArray[np.floating], cells: Cells) -> float:
    """Share of cells whose nearest cell of another batch has the same type."""
    right = 0
    for row in range(len(values)):
        others = np.flatnonzero(cells.batches.codes != cells.batches.codes[row])
        nearest = others[np.linalg.norm(values[others] - values[row], axis=1).argmin()]
        right += cells.types[nearest] == cells.types[row]
    return right / len(values)
