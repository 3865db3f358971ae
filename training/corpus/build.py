"""Build one corpus from many files, each with different genes, and report on each file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.rows import Rows
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.training.corpus.fingerprints import KeptOut, fingerprints
from scpalm.training.corpus.reader import FORMAT_VERSION, CorpusError
from scpalm.training.corpus.source import CorpusOptions, Source, naming


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

    Duplicate cells are dropped and counted. So are cells that are in a file of ``never`` (evaluation files), even when
    the two files list different genes.

    Raises:
        CorpusError: ``out`` exists, no cell is left, the disk is full, or a file is invalid (names file, cell, gene).
    """
    if out.exists():
        raise CorpusError(f"{out} exists already. Choose another folder or remove it.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left behind by a killed build
    try:
        partial.mkdir(parents=True)
        meta = _build(partial, files, vocabulary, options, never, progress)
        partial.rename(out)
    except OSError as error:
        where = error.filename or partial
        raise CorpusError(f"{where} could not be written ({error.strerror or error}). Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return meta


def _build(
    partial: Path,
    files: Sequence[Path],
    vocabulary: Vocabulary,
    options: CorpusOptions,
    never: Sequence[Path],
    progress: Callable[[str, int], None],
) -> dict[str, Any]:
    kept_out = _read_kept_out(never, vocabulary)
    seen: set[bytes] = set()
    content = hashlib.blake2b(digest_size=16)  # identifies the cells and their order
    writer = _ShardWriter(partial, options.shard_cells)
    reports, measured, tables = [], [], []
    for number, path in enumerate(files):
        source = Source(path, vocabulary, options)
        report: dict[str, Any] = {"file": path.name, "cells": 0, "duplicates": 0, "filtered": 0, "evaluation_cells": 0}
        with naming(path):
            for part in source.chunks(report):
                prints = fingerprints(part.rows, part.counts)
                forbidden = kept_out.among(part.rows, part.counts, source.measured)
                fresh = ~forbidden
                for i, fingerprint in enumerate(prints):
                    fresh[i] &= fingerprint not in seen
                    report["duplicates"] += fingerprint in seen
                    seen.add(fingerprint)
                report["evaluation_cells"] += int(forbidden.sum())
                picked = np.flatnonzero(fresh)
                writer.add(part.rows, picked)
                held_out = [_held_out(prints[i], options) for i in picked]
                content.update(b"".join(prints[i] for i in picked))
                tables.append(part.obs.iloc[picked].assign(file=number, held_out=held_out))
                report["cells"] += len(picked)
                progress(path.name, len(part.rows))
        reports.append(report | source.summary)
        measured.append(source.measured)
    writer.flush()
    if not tables or not sum(len(t) for t in tables):
        raise CorpusError("No cell is left: every cell was filtered out or is a duplicate. Check the per-file report.")
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
        "content": content.hexdigest(),
    }
    (partial / "corpus.json").write_text(json.dumps(meta, indent=1))
    return meta


def _read_kept_out(never: Sequence[Path], vocabulary: Vocabulary) -> KeptOut:
    kept_out = KeptOut(vocabulary)
    for path in never:
        with naming(path):
            kept_out.add(path)
    return kept_out


def _held_out(fingerprint: bytes, options: CorpusOptions) -> bool:
    salted = hashlib.blake2b(fingerprint + options.seed.to_bytes(8, "little", signed=True), digest_size=8).digest()
    return int.from_bytes(salted, "little") / 2**64 < options.held_out


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
        _save(shard / "indptr.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        _save(shard / "gene_index.npy", np.concatenate([genes for genes, _ in self._pending]))
        _save(shard / "value.npy", np.concatenate([values for _, values in self._pending]))
        self.sizes.append(len(self._pending))
        self._pending.clear()


def _save(path: Path, array: NDArray[np.generic]) -> None:
    try:
        np.save(path, array)
    except OSError as error:  # numpy's error does not name the file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
