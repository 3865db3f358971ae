"""Corpora of random cells at any size, for benchmarks and for tests at the size of a preset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.training.corpus.reader import FORMAT_VERSION

SHARD = 8192


def write_random_corpus(path: Path, cells: int, expressed: int, genes: int) -> None:
    """Write a corpus of random cells without building it from files.

    Args:
        cells: number of cells; the first eight are held out. expressed: genes a cell, each with 1 to 8 of 6,000 counts.
        genes: size of the vocabulary; every gene is measured.
    """
    random = np.random.default_rng(0)
    sizes = [min(SHARD, cells - start) for start in range(0, cells, SHARD)]
    for number, size in enumerate(sizes):
        shard = path / f"shard-{number:05d}"
        shard.mkdir(parents=True)
        # Steps of random length through the genes: sorted without sorting.
        steps = random.integers(1, 2 * genes // expressed, (size, expressed), dtype=np.int32)
        index = np.minimum(np.cumsum(steps, axis=1), genes - 1)
        counts = random.integers(1, 9, (size, expressed))
        np.save(shard / "indptr.npy", np.arange(size + 1, dtype=np.int64) * expressed)
        np.save(shard / "gene_index.npy", index.astype(np.int32).ravel())
        np.save(shard / "value.npy", np.log1p(counts * (1e4 / 6000)).astype(np.float32).ravel())
    columns = {"dataset": "made up", "tissue": "none", "cell_type": "", "cell": "c", "total": 6000.0, "file": 0}
    pd.DataFrame({**columns, "held_out": np.arange(cells) < 8}).to_parquet(path / "obs.parquet")
    np.save(path / "measured.npy", np.ones((1, genes), dtype=bool))
    numbers = range(genes)
    names = [f"GENE{i}" for i in numbers]
    Vocabulary([f"ENSG{i:011d}" for i in numbers], names, [[] for _ in numbers]).save(path / "genes.parquet")
    meta = {"format_version": FORMAT_VERSION, "shard_cells": sizes, "files": [{"input": "counts"}]}
    (path / "corpus.json").write_text(json.dumps(meta))
