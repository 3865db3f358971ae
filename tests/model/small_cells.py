"""Small matrices of cells to write to files, and a reader that returns a plain array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix

NUM_CELLS, NUM_GENES = 23, 40


def small_counts(kind: str = "csr", dtype: str = "float32") -> AnnData:
    random = np.random.default_rng(0)
    counts = (random.poisson(0.4, (NUM_CELLS, NUM_GENES))).astype(dtype)
    counts[:, 0] = 1  # no empty cell
    counts[3, 1:] = 0
    matrix = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[kind](counts)
    cells = AnnData(matrix)
    cells.obs_names = [f"cell-{i}" for i in range(NUM_CELLS)]
    cells.var_names = [f"GENE{i}" for i in range(NUM_GENES)]
    return cells


def dense(cells: AnnData, layer: str | None = None) -> NDArray[np.generic]:
    matrix = cells.layers[layer] if layer else cells.X
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def joined(chunks: Sequence[CellMatrix]) -> NDArray[np.generic]:
    for chunk in chunks:
        chunk.validate()
    shape = chunks[0].num_genes
    parts = [sparse.csr_matrix((c.data, c.indices, c.indptr), shape=(c.num_cells, shape)) for c in chunks]
    return sparse.vstack(parts).toarray()
