"""Tables of counts: as a sparse matrix, and with a selection of genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.linear import row_sums


def select_genes(matrix: CellMatrix, columns: NDArray[np.int64]) -> CellMatrix:
    """The same cells with these ``columns`` only; each cell keeps its total over all genes."""
    part = count_table(matrix)[:, columns]
    part.sort_indices()
    ids = matrix.ensembl_ids
    return CellMatrix(
        part.indptr.astype(np.int64),
        part.indices.astype(np.int32),
        part.data,
        [matrix.genes[i] for i in columns],
        matrix.cells,
        None if ids is None else [ids[i] for i in columns],
        cell_totals(matrix),
    )


def count_table(matrix: CellMatrix) -> sparse.csr_matrix:
    """``[cells, genes]`` a copy without duplicate or zero entries."""
    shape = (matrix.num_cells, matrix.num_genes)
    table = sparse.csr_matrix((matrix.data.copy(), matrix.indices, matrix.indptr), shape=shape)
    table.sum_duplicates()
    table.eliminate_zeros()
    return table


def cell_totals(matrix: CellMatrix) -> NDArray[np.float64]:
    """``[cells]`` counts over all genes: as given with the cells, or their row sums."""
    if matrix.totals is not None:
        return np.asarray(matrix.totals, dtype=np.float64)
    return row_sums(matrix.data, matrix.indices, matrix.indptr, matrix.num_genes)
