"""A second bundle as a source of embeddings, to compare two models on the same cells in one table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.embeddings import BundleEmbeddings


class OtherBundle:
    """An ``EmbeddingSource``: the embedding, f and h_C of another bundle, as ``<name>-<version>:<method>``."""

    def __init__(self, bundle: Bundle, first: Bundle) -> None:
        same = (bundle.name, bundle.version) == (first.name, first.version)
        self._prefix = f"{bundle.path.name if same else f'{bundle.name}-{bundle.version}'}:"
        self._source = BundleEmbeddings(bundle)
        self.methods = tuple(self._prefix + method for method in ("embedding", "basis", "h_C"))

    def zero_shot(self, method: str, dataset: str) -> bool:
        """See `BundleEmbeddings.zero_shot`."""
        return self._source.zero_shot(method.removeprefix(self._prefix), dataset)

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float32]:
        """See `BundleEmbeddings.embed`."""
        return self._source.embed(method.removeprefix(self._prefix), matrix)
