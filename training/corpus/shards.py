"""Shards of a corpus: some thousand sparse cells in three arrays each, written once and then memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import Rows
from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.thinning import Cell

SHARD_ARRAYS: dict[str, type[np.generic]] = {"indptr": np.int64, "gene_index": np.int32, "value": np.float32}


@dataclass(frozen=True)
class Shard:
    """Some cells of the corpus, memory-mapped.

    Attributes:
        indptr: ``[cells + 1]`` int64. gene_index: ``[entries]`` int32. value: ``[entries]`` float32 log1p CP10K.
    """

    indptr: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]

    @classmethod
    def open(cls, path: Path, num_cells: int) -> Shard:
        """Raises CorpusError that names the missing or damaged file."""
        shard = cls(*(_load(path / f"{name}.npy", dtype) for name, dtype in SHARD_ARRAYS.items()))
        entries = int(shard.indptr[-1]) if len(shard.indptr) else -1
        if len(shard.indptr) != num_cells + 1 or entries != len(shard.value) or entries != len(shard.gene_index):
            raise CorpusError(f"{path} is corrupt: its arrays do not agree in length. Build the corpus again.")
        if shard.indptr[0] != 0 or (np.diff(shard.indptr) < 0).any():
            raise CorpusError(
                f"{path}/indptr.npy is corrupt: row boundaries do not rise from 0. Build the corpus again."
            )
        return shard


class Shards:
    """All shards of a corpus, read by row number. Raises CorpusError for a damaged shard."""

    def __init__(self, path: Path, sizes: Sequence[int]) -> None:
        self._path = path
        self._shards = [Shard.open(path / _name(number), size) for number, size in enumerate(sizes)]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def number(self, row: int) -> int:
        """The shard that holds a row."""
        return int(np.searchsorted(self._first, row, side="right")) - 1

    def path(self, row: int) -> Path:
        """Its folder."""
        return self._path / _name(self.number(row))

    def cell(self, row: int) -> Cell:
        """Gene indices and values of one cell."""
        number = self.number(row)
        shard, local = self._shards[number], row - self._first[number]
        start, stop = int(shard.indptr[local]), int(shard.indptr[local + 1])
        return shard.gene_index[start:stop], shard.value[start:stop]


class ShardWriter:
    """Writes cells to shards of ``shard_cells``.

    Attributes:
        sizes: cells of each shard written so far.
    """

    def __init__(self, path: Path, shard_cells: int) -> None:
        self.sizes: list[int] = []
        self._path, self._shard_cells = path, shard_cells
        self._pending: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []

    def add(self, rows: Rows, picked: NDArray[np.int64]) -> None:
        """Add the rows with these numbers."""
        for i in picked:
            start, stop = rows.indptr[i], rows.indptr[i + 1]
            self._pending.append((rows.gene_index[start:stop], rows.value[start:stop]))
            if len(self._pending) == self._shard_cells:
                self.flush()

    def written(self) -> Shards:
        """Flush, and open what has been written."""
        self.flush()
        return Shards(self._path, self.sizes)

    def flush(self) -> None:
        """Write the cells that are still in memory as a shard, which may be small. Raises OSError."""
        if not self._pending:
            return
        shard = self._path / _name(len(self.sizes))
        shard.mkdir()
        lengths = [len(genes) for genes, _ in self._pending]
        _save(shard / "indptr.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        _save(shard / "gene_index.npy", np.concatenate([genes for genes, _ in self._pending]))
        _save(shard / "value.npy", np.concatenate([values for _, values in self._pending]))
        self.sizes.append(len(self._pending))
        self._pending.clear()


def _name(number: int) -> str:
    return f"shard-{number:05d}"


def _load(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(f"{path} cannot be read ({error}). Build the corpus again.") from error
    if array.ndim != 1 or array.dtype != dtype:
        raise CorpusError(f"{path} is corrupt: it does not hold a row of {dtype.__name__}. Build the corpus again.")
    return np.asarray(array)  # the same memory, without memmap's overhead at every slice


def _save(path: Path, array: NDArray[np.generic]) -> None:
    try:
        np.save(path, array)
    except OSError as error:  # numpy's error does not name the file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
