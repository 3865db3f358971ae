"""Baselines fitted to all batches of a file at once: principal components, Harmony on these, scVI."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import Baselines
from scpalm.training.evaluation.common.scvi_baseline import Scvi
from scpalm.training.evaluation.common.source import NotApplicable


class JointBaselines:
    """An ``EmbeddingSource`` of ``pca50``, ``harmony`` and ``scvi`` for one file.

    ``harmony`` corrects the 50 components for the batches (Korsunsky et al. 2019); ``scvi`` has them as a covariate.
    """

    methods = ("pca50", "harmony", "scvi")

    def __init__(self, batches: Sequence[str], *, seed: int = 0) -> None:
        """``batches [cells]``: the batch of each cell of the file."""
        self._batches, self._seed = batches, seed
        self._components = Baselines(("pca50",))
        self._scvi = Scvi(batches=batches, seed=seed)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.floating]:
        """``[cells, width]``. Raises NotApplicable if a package is missing, InputError for unusable cells."""
        if method == "scvi":
            return self._scvi.embed(method, matrix)
        scores = self._components.embed("pca50", matrix)
        return scores if method == "pca50" else self._harmony(scores)

    def _harmony(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            from harmonypy import run_harmony
        except ImportError as error:
            raise NotApplicable(
                "no-harmonypy",
                "Harmony needs harmonypy, which is not installed.",
                hint="Install it with pip install 'scpalm[integration]'.",
            ) from error
        logging.getLogger("harmonypy").setLevel(logging.WARNING)
        table = pd.DataFrame({"batch": list(self._batches)})
        corrected = run_harmony(scores, table, "batch", random_state=self._seed, verbose=False).Z_corr
        return np.asarray(corrected, dtype=np.float64)
