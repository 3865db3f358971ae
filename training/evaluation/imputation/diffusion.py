"""Diffusion over a cell graph, after MAGIC (van Dijk et al. 2018): an alpha-decay kernel, t steps.

Written from the published description; a test compares it with the authors' program if that is installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.neighbors import nearest
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.principal_components import components
from scpalm.training.evaluation.imputation.imputers import Values, average

# Weights below this are dropped.
THRESHOLD = 1e-4


@dataclass(frozen=True)
class Diffusion:
    """``diffusion``, an ``Imputer``. Defaults of MAGIC 3: 5 neighbours set the bandwidth, 15 are linked, 3 steps."""

    knn: int = 5
    decay: float = 1.0
    steps: int = 3
    num_components: int = 100

    methods = ("diffusion",)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K, diffused. Raises InputError for fewer than 3 cells."""
        log = log_normalized(matrix)
        operator = diffusion_operator(components(log, self.num_components, seed), self.knn, self.decay)
        values: sparse.csr_matrix | Values = log
        for _ in range(self.steps):
            values = average(operator, values)
        return np.asarray(values, dtype=np.float32)


def diffusion_operator(array: NDArray[np.floating], knn: int = 5, decay: float = 1.0) -> sparse.csr_matrix:
    """``[cells, cells]`` transition probabilities; rows sum to 1.

    Weights are ``exp(-(d / bandwidth)^decay)`` for at most ``3 knn`` other cells. A cell's bandwidth is the distance to
    its ``knn``-th neighbour. The mean of both directions makes the weights symmetric.
    """
    cells = len(array)
    reach = min(3 * knn, cells - 1)
    found = nearest(array, reach)
    bandwidth = np.maximum(found.distance[:, min(knn, reach) - 1], np.finfo(np.float64).tiny)
    weight = np.exp(-((found.distance / bandwidth[:, None]) ** decay))
    weight[weight < THRESHOLD] = 0.0
    indptr = np.arange(cells + 1) * reach
    kernel = sparse.csr_matrix((weight.ravel(), found.index.ravel(), indptr), shape=(cells, cells))
    kernel = kernel + sparse.identity(cells, format="csr")
    kernel = (kernel + kernel.T) / 2
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(kernel.sum(axis=1)).ravel()) @ kernel)
