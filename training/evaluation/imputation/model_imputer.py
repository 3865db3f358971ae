"""The bundle as an ``Imputer``: the stage-1 decoder, alone and with the residual of neighbouring cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.source import trained_on
from scpalm.training.evaluation.imputation.decoder import DecodedCells
from scpalm.training.evaluation.imputation.imputers import Values, average, neighbour_weights


class ModelImputer:
    """``scpalm_mean`` (the decoder's ``o``, clipped at 0: what ``/impute`` serves) and ``scpalm_neighbours``.

    ``scpalm_neighbours`` adds the mean residual of the 15 nearest cells in ``h_C``. It uses the file, so it is not
    zero-shot. The decoded cells of the last matrix are cached.
    """

    methods = ("scpalm_mean", "scpalm_neighbours")

    def __init__(self, bundle: Bundle) -> None:
        self._cells = DecodedCells(bundle)
        self._trained_on = trained_on(bundle)
        self._last: tuple[CellMatrix, NDArray[np.float32], Values] | None = None

    def known(self, matrix: CellMatrix) -> NDArray[np.int64]:
        """``[genes]`` vocabulary position of each column, -1 for genes that the model does not know."""
        return self._cells.columns(matrix)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return method == "scpalm_mean" and dataset not in self._trained_on

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K. Raises ValueError for an unknown method or a gene the model does not know."""
        if method not in self.methods:
            raise ValueError(f"Unknown method '{method}': choose one of {', '.join(self.methods)}.")
        h, o = self._decoded(matrix)
        if method == "scpalm_mean":
            return o
        weights = neighbour_weights(h)
        residual: sparse.csr_matrix = log_normalized(matrix)
        return np.maximum(o + average(weights, residual) - average(weights, o), 0.0)

    def _decoded(self, matrix: CellMatrix) -> tuple[NDArray[np.float32], Values]:
        if self._last is None or self._last[0] is not matrix:
            columns = self.known(matrix)
            if (columns < 0).any():
                raise ValueError("Select the genes that the model knows before it imputes them.")
            o = np.empty((matrix.num_cells, matrix.num_genes), dtype=np.float32)
            parts = []
            for place, h, block in self._cells.blocks(matrix):
                o[place] = block[:, columns]
                parts.append(h)
            self._last = (matrix, np.concatenate(parts), o)
        return self._last[1], self._last[2]
