"""h5ad files, each with its own genes -> one corpus, with a report a file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.errors import InputError
from model.genes import Vocabulary
from model.h5ad import H5adFile
from model.matrix import CellMatrix
from model.normalize import SCALE
from model.prepare import Preparer
from model.rows import Rows
from training.corpus import FORMAT_VERSION, CorpusError

CHUNK = 2048


@dataclass(frozen=True)
class CorpusOptions:
    """How files become a corpus.

    Attributes:
        totals_column: obs column with each cell's counts over all genes, for files that keep only some genes.
        keep: obs column -> value; where a file has the column, other cells are dropped (e.g. doublets).
        min_genes: cells with fewer expressed known genes are dropped.
        held_out: share of cells kept for the held-out loss, chosen by a hash of the cell's content.
        shard_cells: cells a shard. seed: of the held-out choice.
    """

    totals_column: str = "total_UMIs"
    keep: dict[str, str] = field(default_factory=dict)
    min_genes: int = 20
    held_out: float = 0.02
    shard_cells: int = 16384
    seed: int = 0


def fingerprints(rows: Rows, totals: NDArray[np.float64]) -> list[bytes]:
    """A hash of each cell's counts, the same whichever file it stands in (as long as the file has the same genes)."""
    out = []
    for i in range(len(rows)):
        start, stop = rows.indptr[i], rows.indptr[i + 1]
        counts = np.rint(np.expm1(rows.value[start:stop].astype(np.float64)) * totals[i] / SCALE).astype(np.int64)
        out.append(hashlib.blake2b(rows.gene_index[start:stop].tobytes() + counts.tobytes(), digest_size=16).digest())
    return out


def file_fingerprints(path: Path, vocabulary: Vocabulary) -> set[bytes]:
    """Fingerprints of all cells of a file, to keep them out of a corpus."""
    prints: set[bytes] = set()
    with _naming(path), H5adFile(path) as file:
        preparer = Preparer(vocabulary, file.genes, file.ensembl_ids)
        target = vocabulary.align(file.genes, file.ensembl_ids).target
        for chunk in file.chunks(CHUNK):
            # A cell without a known gene cannot enter a corpus either.
            known = np.flatnonzero(_known_genes(chunk, target) > 0)
            if len(known):
                chunk = _take(chunk, known)
                prints.update(fingerprints(preparer.prepare(chunk).rows, chunk.row_totals()))
    return prints


def build_corpus(
    out: Path,
    files: Sequence[Path],
    vocabulary: Vocabulary,
    options: CorpusOptions,
    *,
    never: Sequence[Path] = (),
    progress: Callable[[str, int], None] = lambda name, cells: None,
) -> dict[str, Any]:
    """Write ``out`` (whole or not at all) and return ``corpus.json``.

    Cells whose fingerprint was seen before are dropped and counted; so are cells that stand in a file of ``never``
    (evaluation files). Raises CorpusError when ``out`` exists, nothing is left, or a file is wrong (naming file, cell
    and gene).
    """
    if out.exists():
        raise CorpusError(f"{out} exists already. Choose another folder or remove it.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    seen: set[bytes] = set()
    forbidden = {print_ for path in never for print_ in file_fingerprints(path, vocabulary)}
    writer = _ShardWriter(partial, options.shard_cells)
    reports, measured, tables = [], [], []
    order: list[bytes] = []
    for number, path in enumerate(files):
        source = _Source(path, vocabulary, options)
        report: dict[str, Any] = {"file": path.name, "cells": 0, "duplicates": 0, "filtered": 0, "evaluation_cells": 0}
        with _naming(path):
            for rows, obs, prints in source.chunks(report):
                fresh = np.zeros(len(rows), dtype=bool)
                for i, print_ in enumerate(prints):
                    fresh[i] = print_ not in seen and print_ not in forbidden
                    report["duplicates"] += print_ in seen
                    report["evaluation_cells"] += print_ in forbidden
                    seen.add(print_)
                picked = np.flatnonzero(fresh)
                order += [prints[i] for i in picked]
                writer.add(rows, picked)
                held_out = [_held_out(prints[i], options) for i in picked]
                tables.append(obs.iloc[picked].assign(file=number, held_out=held_out))
                report["cells"] += len(picked)
                progress(path.name, len(rows))
        reports.append(report | source.summary)
        measured.append(source.measured)
    writer.flush()
    # Which cells, in which order.
    content = hashlib.blake2b(b"".join(order), digest_size=16).hexdigest()
    if not tables or not sum(len(t) for t in tables):
        raise CorpusError("No cell is left: every cell was filtered or is a duplicate. Look at the per-file report.")
    pd.concat(tables, ignore_index=True).to_parquet(partial / "obs.parquet")
    np.save(partial / "measured.npy", np.stack(measured))
    vocabulary.save(partial / "genes.parquet")
    meta = {
        "format_version": FORMAT_VERSION,
        "num_genes": len(vocabulary),
        "shard_cells": writer.sizes,
        "files": reports,
        "seed": options.seed,
        "held_out": options.held_out,
        "content": content,
    }
    (partial / "corpus.json").write_text(json.dumps(meta, indent=1))
    partial.rename(out)
    return meta


def _held_out(print_: bytes, options: CorpusOptions) -> bool:
    salted = hashlib.blake2b(print_ + options.seed.to_bytes(8, "little", signed=True), digest_size=8).digest()
    return int.from_bytes(salted, "little") / 2**64 < options.held_out


class _Source:
    """One file, read in chunks, filtered and prepared."""

    def __init__(self, path: Path, vocabulary: Vocabulary, options: CorpusOptions) -> None:
        self.path, self.vocabulary, self.options = path, vocabulary, options
        self.measured = np.zeros(len(vocabulary), dtype=bool)
        self.summary: dict[str, Any] = {}

    def chunks(self, report: dict[str, Any]) -> Iterator[tuple[Rows, pd.DataFrame, list[bytes]]]:
        with H5adFile(self.path) as file:
            totals = self.options.totals_column if file.obs_column(self.options.totals_column) is not None else None
        with H5adFile(self.path, totals_column=totals) as file:
            columns = {
                n: file.obs_column(n) for n in ("dataset", "tissue", "cell_type", "is_duplicate", *self.options.keep)
            }
            preparer = Preparer(self.vocabulary, file.genes, file.ensembl_ids)
            known = self.vocabulary.align(file.genes, file.ensembl_ids)
            self.measured = known.gene_set.measured
            self.summary = {"genes_in": known.coverage.genes_in, "genes_matched": known.coverage.genes_matched}
            start = 0
            for chunk in file.chunks(CHUNK):
                at = slice(start, start + chunk.num_cells)
                start += chunk.num_cells
                wanted = self._wanted(chunk, columns, at, known.target)
                report["filtered"] += int((~wanted).sum())
                if not wanted.any():
                    continue
                chunk = _take(chunk, np.flatnonzero(wanted))
                prepared = preparer.prepare(chunk)
                self.summary |= {"input": prepared.input.detected, "why": prepared.input.why}
                obs = pd.DataFrame({"cell": list(chunk.cells), "total": chunk.row_totals()})
                for name, default in (("dataset", self.path.stem), ("tissue", "unknown"), ("cell_type", "")):
                    column = columns[name]
                    obs[name] = default if column is None else [str(v) for v in np.asarray(column)[at][wanted]]
                yield prepared.rows, obs, fingerprints(prepared.rows, chunk.row_totals())

    def _wanted(
        self, chunk: CellMatrix, columns: dict[str, Any], at: slice, target: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        wanted = _known_genes(chunk, target) >= max(self.options.min_genes, 1)
        if columns["is_duplicate"] is not None:
            wanted &= ~np.isin([str(v) for v in np.asarray(columns["is_duplicate"])[at]], ["True", "true", "1"])
        for name, value in self.options.keep.items():
            if columns[name] is not None:
                wanted &= np.array([str(v) == value for v in np.asarray(columns[name])[at]])
        return wanted


def _known_genes(chunk: CellMatrix, target: NDArray[np.int32]) -> NDArray[np.int64]:
    """``[B]`` expressed columns of each cell that are genes of the vocabulary."""
    expressed = (target[chunk.indices] >= 0) & (chunk.data > 0)
    row = np.repeat(np.arange(chunk.num_cells), np.diff(chunk.indptr))
    return np.bincount(row[expressed], minlength=chunk.num_cells)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says of an error about cells or genes which file they are in."""
    try:
        yield
    except InputError as error:
        raise CorpusError(f"{path}: {error}") from error


def _take(matrix: CellMatrix, rows: NDArray[np.int64]) -> CellMatrix:
    lengths = np.diff(matrix.indptr)[rows]
    entries = np.concatenate([np.arange(matrix.indptr[r], matrix.indptr[r + 1]) for r in rows])
    return CellMatrix(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        matrix.indices[entries],
        matrix.data[entries],
        matrix.genes,
        [matrix.cells[i] for i in rows],
        matrix.ensembl_ids,
        None if matrix.totals is None else matrix.totals[rows],
    )


class _ShardWriter:
    def __init__(self, path: Path, shard_cells: int) -> None:
        self.path, self.shard_cells = path, shard_cells
        self.sizes: list[int] = []
        self._pending: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []

    def add(self, rows: Rows, picked: NDArray[np.int64]) -> None:
        for i in picked:
            start, stop = rows.indptr[i], rows.indptr[i + 1]
            self._pending.append((rows.gene_index[start:stop], rows.value[start:stop]))
            if len(self._pending) == self.shard_cells:
                self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        shard = self.path / f"shard-{len(self.sizes):05d}"
        shard.mkdir()
        lengths = [len(genes) for genes, _ in self._pending]
        np.save(shard / "indptr.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        np.save(shard / "gene_index.npy", np.concatenate([genes for genes, _ in self._pending]))
        np.save(shard / "value.npy", np.concatenate([values for _, values in self._pending]))
        self.sizes.append(len(self._pending))
        self._pending.clear()
