"""Ways to fill in what a cell did not show: one Protocol, and the simple baselines."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.clustering.baselines import log_normalized
from scpalm.training.evaluation.common.neighbors import nearest

Values = NDArray[np.float32]
K = 15
COMPONENTS = 50
_CELLS_BY_PRODUCTS = 6000


class Imputer(Protocol):
    """Named ways to estimate the log1p CP10K of every gene of every cell.

    Attributes:
        methods: the names it knows, in the order of a table.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...

    def zero_shot(self, method: str, dataset: str) -> bool:
        """Whether the method has seen nothing of ``dataset`` but the cell at hand."""
        ...

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K, by the cells' totals as given. ``seed`` of whatever is drawn."""
        ...


class SimpleImputers:
    """``none`` (the zeros stay), ``cell_mean`` and ``gene_mean`` of the file, ``knn`` smoothing.

    ``cell_mean`` is the mean of a cell's own *positive* values, the same for all genes; it needs no other cell. The
    others are fitted to the file. ``knn``: mean over the 15 nearest other cells in 50 principal components.
    """

    methods = ("none", "cell_mean", "gene_mean", "knn")

    def zero_shot(self, method: str, dataset: str) -> bool:
        return method in ("none", "cell_mean")

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K. Raises ValueError for an unknown method, InputError for too few cells."""
        if method not in self.methods:
            raise ValueError(f"Unknown method '{method}': choose of {', '.join(self.methods)}.")
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
        """``means [G]`` log1p CP10K, in the vocabulary's order; ``columns [genes]`` the place of the file's genes."""
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
    return _dense(product).astype(np.float32, copy=False)


def _dense(values: sparse.csr_matrix | NDArray[np.floating]) -> NDArray[np.floating]:
    return values if isinstance(values, np.ndarray) else np.asarray(values.todense())


def components(values: sparse.csr_matrix | Values, num: int, seed: int = 0) -> NDArray[np.float64]:
    """``[cells, num]`` principal components, centred, unscaled; exact up to 6,000 cells, randomised (seeded) beyond.

    Raises:
        InputError: fewer than 3 cells or genes.
    """
    cells, genes = values.shape
    width = min(num, cells - 1, genes - 1)
    if width < 2:
        raise InputError(
            "too-few-genes", f"{cells} cells and {genes} genes are left.", mend="Imputation needs 3 of each at least."
        )
    if cells > _CELLS_BY_PRODUCTS:
        dense = _dense(values)
        return np.asarray(PCA(width, svd_solver="randomized", random_state=seed).fit_transform(dense), dtype=np.float64)
    wide = _dense(values @ values.T).astype(np.float64)
    wide = wide - wide.mean(axis=0)[None] - wide.mean(axis=1)[:, None] + wide.mean()
    eigenvalues, vectors = np.linalg.eigh(wide)
    scores = (vectors[:, -width:] * np.sqrt(np.maximum(eigenvalues[-width:], 0.0)))[:, ::-1]
    largest = np.abs(scores).argmax(axis=0)
    return np.asarray(scores * np.where(scores[largest, np.arange(width)] < 0, -1.0, 1.0), dtype=np.float64)
