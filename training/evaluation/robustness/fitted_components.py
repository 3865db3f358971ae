"""Principal components fitted to a file once, on which changed copies of its cells are projected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.principal_components import principal_components


class FittedComponents:
    """The components of a file's log1p CP10K values. Raises InputError for a file with too few cells or genes."""

    def __init__(self, matrix: CellMatrix, num: int) -> None:
        log = log_normalized(matrix)
        scores = principal_components(log, num)
        self._mean = np.asarray(log.mean(axis=0)).ravel()
        # X = U S V' and the scores are U S, so V = X' (U S) / S^2; the mean drops out because scores sum to 0.
        self._axes = np.asarray(log.T @ scores) / np.maximum(np.square(scores).sum(axis=0), 1e-12)

    def project(self, matrix: CellMatrix, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[cells, num]`` scores. ``columns``: of each gene in the file; genes that are missing count as the mean."""
        axes = self._axes[columns]
        return np.asarray(log_normalized(matrix) @ axes - self._mean[columns] @ axes, dtype=np.float64)
