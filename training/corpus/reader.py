"""A corpus on disk: shards of sparse cells in vocabulary order, memory-mapped, read by row number."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.network.embedding import GeneSetGroup, SparseCells
from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.shards import Shards
from scpalm.training.corpus.thinning import Cell, Streams, split_counts, thin_counts

__all__ = ["FORMAT_VERSION", "Corpus", "CorpusError"]

FORMAT_VERSION = 1


class Corpus:
    """Cells of many files.

    Attributes:
        path: the folder. meta: ``corpus.json``: files with their reports, vocabulary size, seeds.
        obs: one row per cell: dataset, tissue, cell_type, cell_type_id (of the Cell Ontology, "" where unknown), donor,
            cell, total, file (number), held_out, simulated. Simulated cells are drawn from expression profiles: the
            dataset is a profile file, the cell_type one of its columns.
        measured: ``[files, G]`` bool, the genes of each file; a profile file has a row for each set of genes.
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
        # Corpora that were built before these columns existed.
        for column, default in (("simulated", False), ("cell_type_id", "")):
            if column not in self.obs:
                self.obs[column] = default
        self._shards = Shards(self.path, sizes)
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
        """Identifies this corpus: a hash of ``corpus.json``, which holds a hash of the cells."""
        return hashlib.sha256(json.dumps(self.meta, sort_keys=True).encode()).hexdigest()

    @cached_property
    def train_rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self.obs["held_out"].to_numpy(bool))

    @cached_property
    def held_out_rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.obs["held_out"].to_numpy(bool))

    def cell(self, row: int) -> Cell:
        """Gene indices and values of one cell."""
        return self._shards.cell(row)

    def batch(self, rows: NDArray[np.int64]) -> SparseCells:
        """Cells as tensors. Raises CorpusError that names a shard with invalid content."""
        return self._tensors([self.cell(int(row)) for row in rows], rows)

    def thinned_batch(
        self, rows: NDArray[np.int64], keep: NDArray[np.float64], streams: Streams
    ) -> tuple[SparseCells, SparseCells]:
        """The cells with thinned counts, and the same cells unthinned.

        The counts of each cell are thinned binomially to the share ``keep [B]``, with the cell's random numbers in
        ``streams``, and normalised again as if sequenced less deeply. Cells without counts stay unthinned.
        """
        cells = [self.cell(int(row)) for row in rows]
        whole = self._tensors(cells, rows)
        thin = np.flatnonzero((keep < 1) & self._is_counts[self._file[rows]])
        if not len(thin):
            return whole, whole
        for i in thin:
            cells[i] = thin_counts(*cells[i], self._total[rows[i]], keep[i], streams[int(i)])
        return self._tensors(cells, rows, whole), whole

    def split_batch(
        self, rows: NDArray[np.int64], keep: NDArray[np.float64], streams: Streams
    ) -> tuple[SparseCells, SparseCells]:
        """Each cell's counts, split at random between two cells.

        A share ``keep [B]`` goes to the first, the rest to the second. Given the cell's expression, the noise of the
        two is independent.
        """
        pairs = [self._split(int(row), keep[i], streams, i) for i, row in enumerate(rows)]
        first = self._tensors([first for first, _ in pairs], rows)
        return first, self._tensors([second for _, second in pairs], rows, first)

    def _split(self, row: int, share: float, streams: Streams, number: int) -> tuple[Cell, Cell]:
        whole = self.cell(row)
        if share >= 1 or not self._is_counts[self._file[row]]:
            return whole, whole
        return split_counts(*whole, self._total[row], share, streams[number])

    def _tensors(self, cells: list[Cell], rows: NDArray[np.int64], same: SparseCells | None = None) -> SparseCells:
        """``same``: a batch of the same rows, whose measured genes are shared."""
        offsets = np.concatenate([[0], np.cumsum([len(values) for _, values in cells])[:-1]])
        index = np.concatenate([genes for genes, _ in cells], dtype=np.int64)
        value = np.concatenate([values for _, values in cells])
        # Negative indices are large as unsigned numbers; NaN fails every comparison.
        known = not len(index) or index.view(np.uint64).max() < self.num_genes
        if not known or (len(value) and not 0 < value.min() <= value.max() < np.inf):
            self._raise_corrupt(rows)
        return SparseCells(
            torch.from_numpy(index),
            torch.from_numpy(value),
            torch.from_numpy(offsets.astype(np.int64)),
            torch.from_numpy(self.measured[self._file[rows]]) if same is None else same.measured,
            self._groups(rows) if same is None else same.groups,
        )

    def _groups(self, rows: NDArray[np.int64]) -> list[GeneSetGroup]:
        """The cells of each distinct set of measured genes, in order of their first cell."""
        kinds, first, kind = np.unique(self._gene_set_of_file[self._file[rows]], return_index=True, return_inverse=True)
        cells = np.split(np.argsort(kind, kind="stable"), np.cumsum(np.bincount(kind))[:-1])
        return [GeneSetGroup(self.measured[kinds[i]], torch.from_numpy(cells[i])) for i in np.argsort(first)]

    @cached_property
    def _gene_set_of_file(self) -> NDArray[np.int64]:
        """``[files]``: the first file with the same measured genes."""
        first: dict[bytes, int] = {}
        packed = np.packbits(self.measured, axis=1)
        return np.array([first.setdefault(bits.tobytes(), number) for number, bits in enumerate(packed)])

    def _raise_corrupt(self, rows: NDArray[np.int64]) -> None:
        for row in rows:
            genes, values = self.cell(int(row))
            for name, fine in (
                ("gene_index", ((genes >= 0) & (genes < self.num_genes)).all()),
                ("value", (np.isfinite(values) & (values > 0)).all()),
            ):
                if not fine:
                    raise CorpusError(
                        f"{self._shards.path(int(row))}/{name}.npy is corrupt: cell {row} has invalid content. "
                        "Build the corpus again."
                    )
