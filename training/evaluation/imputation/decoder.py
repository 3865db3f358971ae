"""Decoded expression of a bundle, as the service computes it: cells -> codes and f -> log1p CP10K of every gene."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.declared import Declaration

BATCH = 256


class DecodedCells:
    """Passes the cells of a file through encoder, codes and decoder. Raises BundleError without a decoder."""

    def __init__(self, bundle: Bundle) -> None:
        self.vocabulary = bundle.vocabulary
        self._session = load(bundle, "cpu").session

    def columns(self, matrix: CellMatrix) -> NDArray[np.int64]:
        """``[genes]`` vocabulary position of each column, -1 where the model does not know the gene."""
        return np.asarray(align(self.vocabulary, matrix.gene_columns).target, dtype=np.int64)

    def blocks(self, matrix: CellMatrix) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """For each block of cells: its rows, ``h_C [b, D]`` and ``o [b, G]`` clipped at 0. Raises InputError."""
        yield from self.blocks_of_rows(prepare(matrix, self.vocabulary, Declaration("counts")).rows)

    def blocks_of_rows(self, rows: Rows) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """As ``blocks``, for prepared rows."""
        genes = np.arange(len(self.vocabulary))
        for start in range(0, len(rows), BATCH):
            encoded = self._session.encode(rows.slice(start, min(start + BATCH, len(rows))))
            decoded = np.maximum(self._session.impute(encoded, genes), 0.0)
            yield slice(start, start + len(encoded)), encoded.h_C, decoded
