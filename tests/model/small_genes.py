"""A vocabulary of human genes small enough to read, and matrices that use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.vocabulary import Vocabulary

NAMED = (
    ("ENSG00000000001", "CD3E", ["T3E", "SHARED", "CD8A", "FORMER"]),
    ("ENSG00000000002", "CD8A", ["CD8"]),
    ("ENSG00000000003", "MS4A1", ["CD20", "SHARED"]),
    ("ENSG00000000004", "HLA-A", ["HLAA"]),
)
FILLER = 40  # GENE0, GENE1, ...: so that a file can have mostly known names


def small_vocabulary() -> Vocabulary:
    filler = [(f"ENSG00000001{i:03d}", f"GENE{i}", [f"OLD{i}"]) for i in range(FILLER)]
    ids, symbols, aliases = zip(*(*NAMED, *filler), strict=True)
    previous = [["OLDCD8", "FORMER", "TWICE"] if s == "CD8A" else ["TWICE"] if s == "MS4A1" else [] for s in symbols]
    return Vocabulary(ids, symbols, aliases, previous)


def fillers(count: int) -> list[str]:
    return [f"GENE{i}" for i in range(count)]


def cell_counts(cells: int, genes: int, seed: int = 0, depth: float = 3000.0) -> NDArray[np.float64]:
    """Counts ``[cells, genes]`` with the spread of expression, and of depth, that cells have."""
    random = np.random.default_rng(seed)
    mean = random.lognormal(0, 2, genes)
    depths = depth * random.lognormal(0, 0.3, (cells, 1))
    return random.poisson(mean / mean.sum() * depths * random.gamma(5, 0.2, (cells, genes))).astype(np.float64)


def matrix_of(
    table: ArrayLike,
    genes: Sequence[str],
    *,
    ensembl_ids: Sequence[str] | None = None,
    totals: Sequence[float] | None = None,
) -> CellMatrix:
    """Dense ``[cells, genes]`` values as a CellMatrix, with cells c0, c1, ..."""
    rows = sparse.csr_matrix(np.asarray(table, dtype=np.float32))
    return CellMatrix(
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.int32),
        rows.data,
        list(genes),
        [f"c{i}" for i in range(rows.shape[0])],
        ensembl_ids,
        None if totals is None else np.asarray(totals, dtype=np.float64),
    )
