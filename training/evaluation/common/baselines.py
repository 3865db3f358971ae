"""Baselines of an embedding: the file's variable genes, and principal components fitted to the file."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.linear import SCALE, to_linear
from scpalm.model.genes.values.normalize import detect_input
from scpalm.training.evaluation.common.principal_components import principal_components
from scpalm.training.evaluation.common.source import BASELINE_METHODS

NUM_VARIABLE_GENES = 2000
COMPONENTS = {"pca10": 10, "pca50": 50, "pca256": 256}
_MEAN_BINS = 20


class Baselines:
    """An ``EmbeddingSource`` of ``hvg2000`` and of components such as ``pca50``. All are fitted to the file.

    They use log1p CP10K of all genes of the file, not only those a model knows. The components of the last file are
    kept, so that all widths share one decomposition.
    """

    def __init__(self, methods: tuple[str, ...] = BASELINE_METHODS) -> None:
        """``methods``: of ``hvg2000`` and the keys of ``COMPONENTS``."""
        self.methods = methods
        self._matrix: CellMatrix | None = None
        self._log: sparse.csr_matrix | None = None
        self._scores: NDArray[np.float64] | None = None

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float64]:
        """``[cells, width]``; narrower than the method's name says where the file has fewer genes or cells.

        Raises:
            InputError: values that are neither counts nor log values, or an empty cell.
            ValueError: an unknown method.
        """
        if method not in self.methods:
            raise ValueError(f"Unknown baseline '{method}': choose one of {', '.join(self.methods)}.")
        if self._log is None or self._matrix is not matrix:
            self._matrix, self._log, self._scores = matrix, log_normalized(matrix), None
        if method == "hvg2000":
            chosen = variable_genes(self._log, NUM_VARIABLE_GENES)
            return np.asarray(self._log[:, chosen].todense(), dtype=np.float64)
        if self._scores is None:
            self._scores = principal_components(self._log, max(COMPONENTS.values()))
        return self._scores[:, : COMPONENTS[method]]


def log_normalized(matrix: CellMatrix) -> sparse.csr_matrix:
    """``[cells, genes]`` float64 log1p CP10K over all genes of the file. Raises InputError."""
    linear, totals = to_linear(matrix, detect_input(matrix))
    per_entry = np.repeat(totals, np.diff(matrix.indptr))
    shape = (matrix.num_cells, matrix.num_genes)
    return sparse.csr_matrix((np.log1p(SCALE * linear / per_entry), matrix.indices, matrix.indptr), shape=shape)


def variable_genes(log: sparse.csr_matrix, num: int) -> NDArray[np.int64]:
    """Columns of the ``num`` most variable genes, ascending; scanpy's default flavour "seurat" (Satija et al. 2015).

    The logarithm of the dispersion (variance over mean of CP10K) is standardised within 20 bins of mean expression.
    Ties go to the lower column. A file with at most ``num`` genes keeps them all.
    """
    if log.shape[1] <= num:
        return np.arange(log.shape[1])
    cells = log.shape[0]
    linear = log.copy()
    linear.data = np.expm1(linear.data)
    mean = np.asarray(linear.mean(axis=0)).ravel()
    square = np.asarray(linear.multiply(linear).mean(axis=0)).ravel()
    variance = np.maximum(square - mean**2, 0.0) * cells / max(cells - 1, 1)
    dispersion = variance / np.where(mean == 0, 1e-12, mean)
    frame = pd.DataFrame({"mean": np.log1p(mean), "dispersion": np.log(np.where(dispersion == 0, np.nan, dispersion))})
    frame["bin"] = pd.cut(frame["mean"], bins=_MEAN_BINS, labels=False)
    of_bin = frame.groupby("bin")["dispersion"]
    centre, spread = of_bin.transform("mean"), of_bin.transform("std")
    # A bin of one gene has no spread: as in Seurat, that gene's standardised dispersion is 1.
    alone = spread.isna()
    score = ((frame["dispersion"] - centre.mask(alone, 0.0)) / spread.where(~alone, centre)).fillna(-np.inf).to_numpy()
    return np.sort(np.argsort(-score, kind="stable")[:num])
