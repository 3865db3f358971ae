"""Where embeddings come from: one Protocol for models and baselines."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix

MODEL_METHODS = ("h_C", "mean_tokens", "concat_tokens", "readout", "untrained")
BASELINE_METHODS = ("hvg2000", "pca50", "pca256")


class EmbeddingSource(Protocol):
    """Named ways to turn the cells of a file into an array.

    Attributes:
        methods: the names it knows, in the order of a table.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...

    def zero_shot(self, method: str, dataset: str) -> bool:
        """Whether the method has seen nothing of ``dataset``: false for what is fitted to it, or was trained on it."""
        ...

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.floating]:
        """``[cells, width]``, one row a cell of ``matrix``, in order. Raises InputError for cells it cannot take."""
        ...
