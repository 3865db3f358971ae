"""The ``EmbeddingSource`` protocol, which models and baselines implement."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix

MODEL_METHODS = ("embedding", "basis", "h_C", "mean_tokens", "concat_tokens", "readout", "untrained")
BASELINE_METHODS = ("hvg2000", "pca50", "pca256")


class EmbeddingSource(Protocol):
    """Named methods that embed the cells of a file.

    Attributes:
        methods: their names, in the order of the table.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...

    def zero_shot(self, method: str, dataset: str) -> bool:
        """False for a method that is fitted to ``dataset`` or was trained on it."""
        ...

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.floating]:
        """``[cells, width]``, in the order of ``matrix``. Raises InputError for cells it cannot embed."""
        ...


def trained_on(bundle: Bundle) -> set[str]:
    """Names of the data sets that the bundle's manifest lists as training data."""
    return {str(entry.get("file", "")).removesuffix(".h5ad") for entry in bundle.manifest["training_data"]}
