"""Stand-ins for a model in tests of the evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from tests.training.evaluation.cells import dense


class LogCounts:
    """An embedding of log counts, and one of noise."""

    methods = ("embedding", "h_C")

    def zero_shot(self, method: str, dataset: str) -> bool:
        return dataset != "seen"

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float64]:
        if method == "embedding":
            return np.log1p(dense(matrix).astype(np.float64))
        return np.random.default_rng(0).normal(size=(matrix.num_cells, 8))
