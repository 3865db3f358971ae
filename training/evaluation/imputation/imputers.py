"""Ways to impute expression: the ``Imputer`` protocol and the simple baselines."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.neighbors import nearest
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.principal_components import as_dense, components

Values = NDArray[np.float32]
K = 15
COMPONENTS = 50


class Imputer(Protocol):
    """Named methods that estimate the log1p CP10K of every gene in every cell.

    Attributes:
        methods: their names, in the order of the table.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...

    def zero_shot(self, method: str, dataset: str) -> bool:
        """Whether the method uses nothing of ``dataset`` except the cell it imputes."""
        ...

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K by the totals given with the cells; ``seed`` is for random draws."""
        ...


class SimpleImputers:
    """``none`` (zeros stay zero), ``cell_mean``, ``gene_mean`` and ``knn`` smoothing.

    ``cell_mean`` is the mean of a cell's *positive* values, the same for all genes; it needs no other cell. The others
    are fitted to the file. ``knn`` is the mean over the 15 nearest other cells in 50 principal components.
    """

    methods = ("none", "cell_mean", "gene_mean", "knn")

    def zero_shot(self, method: str, dataset: str) -> bool:
        return method in ("none", "cell_mean")

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K. Raises ValueError for an unknown method, InputError for too few cells."""
        if method not in self.methods:
            raise ValueError(f"Unknown method '{method}': choose one of {', '.join(self.methods)}.")
        log = log_normalized(matrix)
        shape = (matrix.num_cells, matrix.num_genes)
        if method == "none":
            return np.asarray(log.todense(), dtype=np.float32)
        if method == "cell_mean":
            lengths = np.maximum(np.diff(log.indptr), 1)
            means = np.asarray(log.sum(axis=1)).ravel() / lengths
            return np.broadcast_to(means.astype(np.float32)[:, None], shape)
        if method == "gene_mean":
            return np.broadcast_to(np.asarray(log.mean(axis=0), dtype=np.float32).reshape(1, -1), shape)
        return smooth(log, log)


class CorpusMean:
    """``gene_mean_corpus``: each gene's mean over the training corpus, zero-shot."""

    methods = ("gene_mean_corpus",)

    def __init__(self, means: NDArray[np.float32], columns: NDArray[np.int64]) -> None:
        """``means [G]`` log1p CP10K in vocabulary order; ``columns [genes]`` vocabulary position of each gene."""
        self._row = means[columns].astype(np.float32)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return True

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]``."""
        return np.broadcast_to(self._row[None], (matrix.num_cells, matrix.num_genes))


def smooth(log: sparse.csr_matrix, values: sparse.csr_matrix) -> Values:
    """``[cells, genes]`` mean of ``values`` over each cell's nearest others in 50 components of ``log``."""
    return average(neighbour_weights(components(log, COMPONENTS)), values)


def neighbour_weights(array: NDArray[np.floating], k: int = K) -> sparse.csr_matrix:
    """``[cells, cells]`` rows of ``1/k`` at the ``k`` nearest other cells, exact."""
    cells = len(array)
    k = min(k, cells - 1)
    index = nearest(array, k).index
    return sparse.csr_matrix((np.full(cells * k, 1 / k), index.ravel(), np.arange(cells + 1) * k), shape=(cells, cells))


def average(weights: sparse.csr_matrix, values: sparse.csr_matrix | Values) -> Values:
    """``weights @ values``, dense float32."""
    product = weights.astype(np.float32) @ values.astype(np.float32)
    return as_dense(product).astype(np.float32, copy=False)
