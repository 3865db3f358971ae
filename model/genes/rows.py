"""Rows: cells in the model's gene order. The queue carries them and a session consumes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GeneSet:
    """Which vocabulary genes a file measured. The others are missing, not zero.

    Attributes:
        measured: ``[G]`` bool.
    """

    measured: NDArray[np.bool_]

    @cached_property
    def digest(self) -> str:
        """Content hash, so that equal gene sets share one cached correction."""
        return hashlib.sha256(np.packbits(self.measured).tobytes()).hexdigest()

    @cached_property
    def num_measured(self) -> int:
        return int(self.measured.sum())


@dataclass(frozen=True, eq=False)
class Rows:
    """B cells as sorted (gene index, value) pairs.

    Attributes:
        indptr: ``[B + 1]`` int64.
        gene_index: ``[entries]`` int32, position in the vocabulary, ascending within a cell.
        value: ``[entries]`` float32, log1p CP10K, > 0.
        gene_sets: the gene sets of the files the cells come from.
        gene_set_of_row: ``[B]`` int32, which gene set each cell belongs to.
    """

    indptr: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]
    gene_sets: tuple[GeneSet, ...]
    gene_set_of_row: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_bytes(self) -> int:
        return self.indptr.nbytes + self.gene_index.nbytes + self.value.nbytes

    def lengths(self) -> NDArray[np.int64]:
        """``[B]`` number of expressed genes of each cell."""
        return np.diff(self.indptr)

    def check(self, num_genes: int) -> None:
        """Raise ValueError if the arrays are inconsistent or do not fit a vocabulary of ``num_genes``."""
        entries = len(self.gene_index)
        if len(self.value) != entries or len(self.gene_set_of_row) != len(self):
            raise ValueError("the arrays of the rows have different lengths")
        if len(self) < 1 or self.indptr[0] != 0 or self.indptr[-1] != entries or (np.diff(self.indptr) < 0).any():
            raise ValueError("the row boundaries do not fit the entries")
        if entries and int(self.gene_index.view(np.uint32).max()) >= num_genes:
            raise ValueError("a gene is outside the vocabulary")

    def slice(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop``, as views where possible."""
        first, last = self.indptr[start], self.indptr[stop]
        return Rows(
            self.indptr[start : stop + 1] - first,
            self.gene_index[first:last],
            self.value[first:last],
            self.gene_sets,
            self.gene_set_of_row[start:stop],
        )

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """Concatenate several Rows, in order."""
        if len(parts) == 1:
            return parts[0]
        sets: list[GeneSet] = []
        position: dict[int, int] = {}
        owners = []
        for part in parts:
            for gene_set in part.gene_sets:
                if id(gene_set) not in position:
                    position[id(gene_set)] = len(sets)
                    sets.append(gene_set)
            table = np.array([position[id(s)] for s in part.gene_sets], dtype=np.int32)
            owners.append(table[part.gene_set_of_row])
        lengths = np.concatenate([part.lengths() for part in parts])
        return Rows(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([part.gene_index for part in parts]),
            np.concatenate([part.value for part in parts]),
            tuple(sets),
            np.concatenate(owners),
        )
