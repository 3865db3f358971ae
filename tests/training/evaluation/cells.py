"""Small matrices of counts for tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix


def matrix_of(counts: NDArray[np.floating], genes: Sequence[str] | None = None) -> CellMatrix:
    """A CellMatrix of dense ``[cells, genes]``; genes 'GENE0', 'GENE1', ... unless given."""
    table = sparse.csr_matrix(counts.astype(np.float32))
    return CellMatrix(
        table.indptr.astype(np.int64),
        table.indices.astype(np.int32),
        table.data,
        list(genes) if genes is not None else [f"GENE{i}" for i in range(counts.shape[1])],
        [f"cell{i}" for i in range(counts.shape[0])],
    )


def dense(matrix: CellMatrix) -> NDArray[np.float32]:
    shape = (matrix.num_cells, matrix.num_genes)
    return np.asarray(sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=shape).todense())


def low_rank_counts(
    cells: int = 120, genes: int = 60, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poisson counts of three kinds of cells, and the rates they were drawn from, both ``[cells, genes]``."""
    rng = np.random.default_rng(seed)
    programs = rng.gamma(0.5, 4.0, (3, genes))
    rates = programs[np.arange(cells) % 3] * rng.uniform(0.5, 1.5, (cells, 1))
    return rng.poisson(rates).astype(np.float64), rates
