"""Recognise the same cell in two files, even when the files list different genes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.linear import SCALE
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.io.cells import open_cells

CHUNK = 2048
# Agreement in fewer genes may be a coincidence.
FEWEST_GENES = 20


def counts_of(rows: Rows, totals: NDArray[np.float64]) -> NDArray[np.int64]:
    """``[entries]`` the counts behind normalised values; files of log values give proportions times 1e4 instead."""
    per_entry = np.repeat(totals, rows.lengths())
    return np.rint(np.expm1(rows.value.astype(np.float64)) * per_entry / SCALE).astype(np.int64)


def fingerprints(
    rows: Rows, counts: NDArray[np.int64], shared: NDArray[np.bool_] | None = None, fewest: int = 1
) -> list[bytes]:
    """A hash of the genes and counts of each cell; b"" for cells with fewer than ``fewest`` genes.

    Args:
        counts: ``[entries]`` of the rows. shared: ``[G]`` bool, genes to compare; None: all.
    """
    index, lengths = rows.gene_index, rows.lengths()
    if shared is not None:
        seen = shared[index]
        lengths = np.add.reduceat(np.append(seen, False).astype(np.int64), rows.indptr[:-1]) * (lengths > 0)
        index, counts = index[seen], counts[seen]
    ends = np.cumsum(lengths)
    prints = []
    for start, end in zip(ends - lengths, ends, strict=True):
        content = index[start:end].tobytes() + counts[start:end].tobytes()
        few = end - start < fewest
        prints.append(b"" if few else hashlib.blake2b(content, digest_size=16).digest())
    return prints


class KeptOut:
    """Cells that must not enter a corpus, recognised by the counts of the genes that both files list.

    A file with fewer or other genes therefore cannot bring them in. Cells that express fewer than 20 of the shared
    genes are not compared.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._parts: list[tuple[NDArray[np.bool_], Rows, NDArray[np.int64]]] = []
        self._known: dict[bytes, set[bytes]] = {}

    def add(self, path: Path) -> None:
        """Add all cells of a file (h5ad or zarr). Raises InputError."""
        self._known.clear()
        with open_cells(path) as file:
            preparer = Preparer(self._vocabulary, file.columns)
            target = preparer.target
            for chunk in file.chunks(CHUNK):
                # A cell without known genes cannot enter a corpus anyway.
                some = np.flatnonzero(known_genes(chunk, target) > 0)
                if len(some):
                    chunk = chunk.select(some)
                    prepared = preparer.prepare(chunk)
                    rows = prepared.rows
                    self._parts.append((rows.gene_sets[0].measured, rows, counts_of(rows, prepared.totals)))

    def among(self, rows: Rows, counts: NDArray[np.int64], measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``[B]`` whether each cell of a file must be left out. measured: ``[G]`` genes of that file."""
        found = np.zeros(len(rows), dtype=bool)
        for shared in {part[0].tobytes(): part[0] & measured for part in self._parts}.values():
            prints = fingerprints(rows, counts, shared, FEWEST_GENES)
            known = self._prints_on(shared)
            found |= np.array([fingerprint != b"" and fingerprint in known for fingerprint in prints], dtype=bool)
        return found

    def _prints_on(self, shared: NDArray[np.bool_]) -> set[bytes]:
        key = hashlib.blake2b(np.packbits(shared).tobytes(), digest_size=16).digest()
        if key not in self._known:
            if len(self._known) >= 8:
                self._known.pop(next(iter(self._known)))
            self._known[key] = {
                fingerprint
                for _, rows, counts in self._parts
                for fingerprint in fingerprints(rows, counts, shared, FEWEST_GENES)
                if fingerprint
            }
        return self._known[key]


def known_genes(chunk: CellMatrix, target: NDArray[np.int32]) -> NDArray[np.int64]:
    """``[B]`` number of expressed columns of each cell that are genes of the vocabulary."""
    expressed = (target[chunk.indices] >= 0) & (chunk.data > 0)
    row = np.repeat(np.arange(chunk.num_cells), np.diff(chunk.indptr))
    return np.bincount(row[expressed], minlength=chunk.num_cells)
