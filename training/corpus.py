"""A corpus on disk: shards of sparse cells in vocabulary order, memory-mapped, read by row number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from model.embedding import SparseCells
from model.genes import Vocabulary
from model.normalize import SCALE

FORMAT_VERSION = 1
SHARD_ARRAYS: dict[str, type[np.generic]] = {"indptr": np.int64, "gene_index": np.int32, "value": np.float32}


# One generator for a batch, or one a cell, so that a cell's counts do not depend on the cells before it.
Random = np.random.Generator | Sequence[np.random.Generator]
# Gene indices and values of one cell.
Cell = tuple[NDArray[np.int32], NDArray[np.float32]]


class CorpusError(RuntimeError):
    """A corpus that cannot be read; names the file and the mend."""


@dataclass(frozen=True)
class Shard:
    """A part of the cells, memory-mapped.

    Attributes:
        indptr: ``[cells + 1]`` int64. gene_index: ``[entries]`` int32. value: ``[entries]`` float32 log1p CP10K.
    """

    indptr: NDArray[np.int64]
    gene_index: NDArray[np.int32]
    value: NDArray[np.float32]

    @classmethod
    def open(cls, path: Path, num_cells: int) -> Shard:
        """Raises CorpusError naming the file that is missing or damaged."""
        shard = cls(*(_load(path / f"{name}.npy", dtype) for name, dtype in SHARD_ARRAYS.items()))
        entries = int(shard.indptr[-1]) if len(shard.indptr) else -1
        if len(shard.indptr) != num_cells + 1 or entries != len(shard.value) or entries != len(shard.gene_index):
            raise CorpusError(f"{path} is corrupt: its arrays do not agree in length. Build the corpus again.")
        if shard.indptr[0] != 0 or (np.diff(shard.indptr) < 0).any():
            raise CorpusError(
                f"{path}/indptr.npy is corrupt: row boundaries do not rise from 0. Build the corpus again."
            )
        return shard


def _load(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(f"{path} cannot be read ({error}). Build the corpus again.") from error
    if array.ndim != 1 or array.dtype != dtype:
        raise CorpusError(f"{path} is corrupt: it does not hold a row of {dtype.__name__}. Build the corpus again.")
    return np.asarray(array)  # the same memory, without memmap's bookkeeping at every slice


class Corpus:
    """Cells of many files.

    Attributes:
        path: the directory. meta: ``corpus.json``: files with their reports, vocabulary size, seeds.
        obs: one row a cell: dataset, tissue, cell_type, cell, total, file (number), held_out.
        measured: ``[files, G]`` bool, the genes of each file.
        vocabulary: the genes.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.meta: dict[str, Any] = json.loads((self.path / "corpus.json").read_text())
            version, sizes, files = (self.meta[name] for name in ("format_version", "shard_cells", "files"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CorpusError(
                f"{self.path} is not a corpus ({error!r}). Make one with `scpalm-train corpus`."
            ) from error
        if version != FORMAT_VERSION:
            raise CorpusError(f"{self.path} has another format version. Build the corpus again.")
        self.vocabulary = Vocabulary.load(self.path / "genes.parquet")
        try:
            self.obs = pd.read_parquet(self.path / "obs.parquet")
            self.measured: NDArray[np.bool_] = np.load(self.path / "measured.npy")
        except (OSError, ValueError, EOFError) as error:
            raise CorpusError(f"{self.path} cannot be read ({error}). Build the corpus again.") from error
        expected = (len(files), len(self.vocabulary))
        if sum(sizes) != len(self.obs) or self.measured.shape != expected:
            raise CorpusError(f"{self.path} is corrupt: its files do not agree in length. Build the corpus again.")
        self._shards = [Shard.open(self.path / f"shard-{i:05d}", size) for i, size in enumerate(sizes)]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._file = self.obs["file"].to_numpy()
        self._total = self.obs["total"].to_numpy(np.float64)
        self._is_counts = np.array([f.get("input") == "counts" for f in files])

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def num_genes(self) -> int:
        return len(self.vocabulary)

    @property
    def digest(self) -> str:
        """Tells this corpus from every other: a hash of its description, which has one of its cells."""
        return hashlib.sha256(json.dumps(self.meta, sort_keys=True).encode()).hexdigest()

    @cached_property
    def train_rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self.obs["held_out"].to_numpy(bool))

    @cached_property
    def held_out_rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.obs["held_out"].to_numpy(bool))

    def cell(self, row: int) -> Cell:
        """Gene indices and values of one cell."""
        shard_number = int(np.searchsorted(self._first, row, side="right")) - 1
        shard = self._shards[shard_number]
        local = row - self._first[shard_number]
        start, stop = int(shard.indptr[local]), int(shard.indptr[local + 1])
        return shard.gene_index[start:stop], shard.value[start:stop]

    def batch(
        self,
        rows: NDArray[np.int64],
        *,
        keep: NDArray[np.float64] | None = None,
        rng: Random | None = None,
    ) -> SparseCells:
        """Cells as tensors.

        With ``keep [B]`` the counts of each cell are thinned to that share (binomially, by ``rng`` or by each cell's
        own of a list) and normalised again, as if the cell had been sequenced less deeply; cells that came without
        counts stay whole. Raises CorpusError naming the shard whose content cannot be.
        """
        if keep is None:
            return self._tensors(rows, [self.cell(int(row)) for row in rows])
        assert rng is not None, "thinning needs a seeded generator"
        each = _of_each(rng, len(rows))
        return self._tensors(rows, [self._thin(int(row), keep[i], each[i]) for i, row in enumerate(rows)])

    def split_batch(
        self, rows: NDArray[np.int64], keep: NDArray[np.float64], rng: Random
    ) -> tuple[SparseCells, SparseCells]:
        """Each cell's counts, shared out at random between two cells.

        ``keep [B]`` of them go to the first, the rest to the second. Given the cell's expression, the noise of the two
        is independent.
        """
        each = _of_each(rng, len(rows))
        pairs = [self._split(int(row), keep[i], each[i]) for i, row in enumerate(rows)]
        return self._tensors(rows, [first for first, _ in pairs]), self._tensors(rows, [second for _, second in pairs])

    def _thin(self, row: int, share: float, rng: np.random.Generator) -> Cell:
        whole = self.cell(row)
        if share >= 1 or not self._is_counts[self._file[row]]:
            return whole
        return thin_counts(*whole, self._total[row], share, rng)

    def _split(self, row: int, share: float, rng: np.random.Generator) -> tuple[Cell, Cell]:
        whole = self.cell(row)
        if share >= 1 or not self._is_counts[self._file[row]]:
            return whole, whole
        return split_counts(*whole, self._total[row], share, rng)

    def _tensors(self, rows: NDArray[np.int64], cells: list[Cell]) -> SparseCells:
        offsets = np.concatenate([[0], np.cumsum([len(values) for _, values in cells])[:-1]])
        index = np.concatenate([genes for genes, _ in cells])
        value = np.concatenate([values for _, values in cells])
        # As unsigned numbers negative indices are large; NaN fails every comparison.
        known = not len(index) or index.view(np.uint32).max() < self.num_genes
        if not known or (len(value) and not 0 < value.min() <= value.max() < np.inf):
            self._name_the_corrupt(rows)
        return SparseCells(
            torch.from_numpy(index.astype(np.int64)),
            torch.from_numpy(value),
            torch.from_numpy(offsets.astype(np.int64)),
            torch.from_numpy(self.measured[self._file[rows]]),
        )

    def _name_the_corrupt(self, rows: NDArray[np.int64]) -> None:
        for row in rows:
            genes, values = self.cell(int(row))
            shard = self.path / f"shard-{int(np.searchsorted(self._first, row, side='right')) - 1:05d}"
            for name, fine in (
                ("gene_index", ((genes >= 0) & (genes < self.num_genes)).all()),
                ("value", (np.isfinite(values) & (values > 0)).all()),
            ):
                if not fine:
                    raise CorpusError(
                        f"{shard}/{name}.npy is corrupt: cell {row} holds what cannot be. Build the corpus again."
                    )


def _of_each(rng: Random, cells: int) -> Sequence[np.random.Generator]:
    return [rng] * cells if isinstance(rng, np.random.Generator) else rng


def split_counts(
    genes: NDArray[np.int32], values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> tuple[Cell, Cell]:
    """Give each count to the first cell with probability ``share``, else to the second; normalise both again.

    A cell whose counts would all go one way stays whole, on both sides.
    """
    counts, first, (unknown, first_unknown) = _share_out(values, total, share, rng)
    second = counts - first
    if not first.any() or not second.any():
        return (genes, values), (genes, values)
    return (
        _normalised(genes, first, int(first.sum()) + first_unknown),
        _normalised(genes, second, int(second.sum()) + unknown - first_unknown),
    )


def thin_counts(
    genes: NDArray[np.int32], values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> Cell:
    """The first of the two cells of ``split_counts``."""
    counts, first, (_, first_unknown) = _share_out(values, total, share, rng)
    kept = int(first.sum())
    if kept in (0, int(counts.sum())):
        return genes, values
    return _normalised(genes, first, kept + first_unknown)


def _share_out(
    values: NDArray[np.float32], total: float, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, int]]:
    """Counts, the first cell's of them, and (all, the first's) of the counts of genes outside the vocabulary."""
    counts = np.rint(np.expm1(values.astype(np.float64)) * total / SCALE).astype(np.int64)
    first = _thinned(counts, share, rng)
    unknown = max(round(total) - int(counts.sum()), 0)
    return counts, first, (unknown, int(rng.binomial(unknown, share)))


def _thinned(counts: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Binomial draws: each of the counts is kept with probability ``share``."""
    total = int(counts.sum())
    if total > 12 * len(counts):
        return rng.binomial(counts, share)
    # Where counts are small, one coin a molecule is several times faster than a binomial draw a gene.
    kept = np.concatenate([[0], np.cumsum(rng.random(total, dtype=np.float32) < share)])
    return np.diff(kept[np.concatenate([[0], np.cumsum(counts)])])


def _normalised(genes: NDArray[np.int32], counts: NDArray[np.int64], total: int) -> Cell:
    kept = counts > 0
    return genes[kept], np.log1p(counts[kept] * (SCALE / total)).astype(np.float32)
