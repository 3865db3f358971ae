"""A corpus in one small file that travels to another machine, and the corpus made from it again.

Counts take five to six bits an entry. The cells of each file are stored gene by gene, common genes first: for each gene
the steps from one cell that expresses it to the next, and the counts, each as bytes compressed by Zstandard. Steps and
counts of neighbouring genes are alike in this order, so that the code lengths fit them.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.genes.values.linear import SCALE
from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.matrix import corpus_matrix
from scpalm.training.corpus.packed_streams import Streams
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.shards import ShardWriter

FORMAT_VERSION = 1
_MIB = 2**20
_OMITTED = ("cell",)  # their names


@dataclass(frozen=True)
class PackOptions:
    """What is packed.

    Attributes:
        max_mib: largest size of the file. simulated_cells: cells of each simulated profile; None: as many as fit.
        level: of Zstandard; 19 takes minutes per 50,000 cells.
    """

    max_mib: float = 45.0
    simulated_cells: int | None = None
    level: int = 19


@dataclass(frozen=True)
class Packed:
    """What was packed: the size of the file, cells and entries in it, and the cells of each simulated profile."""

    mib: float
    cells: int
    entries: int
    simulated_cells: int


def pack_corpus(corpus: Corpus, out: Path, options: PackOptions = PackOptions()) -> Packed:
    """Write ``out``. Real cells are all kept; simulated cells as far as the size allows.

    Values are restored within float32 rounding for counts, and as float16 for a file without counts. Cell names are
    left out.

    Raises:
        CorpusError: the real cells alone exceed the size.
    """
    number = _number_in_profile(corpus.obs)
    most = int(number.max(initial=-1)) + 1
    kept = most if options.simulated_cells is None else min(options.simulated_cells, most)
    while True:
        rows = np.flatnonzero(number < kept)
        content = _encoded(corpus, rows, options.level)
        mib = len(content) / _MIB
        if mib <= options.max_mib:
            out.write_bytes(content)
            entries = int(sum(len(corpus.cell(int(row))[0]) for row in rows))
            return Packed(mib, len(rows), entries, kept)
        if options.simulated_cells is not None or kept == 0:
            raise CorpusError(
                f"{corpus.path} takes {mib:.1f} MiB with {kept} cells per profile, the limit is {options.max_mib} MiB."
            )
        kept = min(kept - 1, int(kept * options.max_mib / mib))


def unpack_corpus(packed: Path, folder: Path) -> Corpus:
    """Write the corpus of a packed file, whole or not at all. Raises CorpusError for a damaged file."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with np.load(packed, allow_pickle=False) as arrays:
            _write(dict(arrays), partial)
        partial.rename(folder)
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise CorpusError(f"{packed} is not a packed corpus, or it is damaged ({error}). Copy it again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Corpus(folder)


def _number_in_profile(obs: pd.DataFrame) -> NDArray[np.int64]:
    """``[cells]``: the number of a simulated cell among those of its profile; -1 for a real cell."""
    number = obs.groupby(["file", "cell_type"], sort=False, dropna=False).cumcount().to_numpy(np.int64)
    return np.where(obs["simulated"].to_numpy(bool), number, -1)


def _encoded(corpus: Corpus, rows: NDArray[np.int64], level: int) -> bytes:
    file = corpus.obs["file"].to_numpy()
    rows = rows[np.argsort(file[rows], kind="stable")]
    streams = Streams()
    files = []
    for number, is_counts in enumerate(_is_counts(corpus.meta)):
        own = rows[file[rows] == number]
        if not len(own):
            files.append({"cells": 0, "genes": 0})
            continue
        values = corpus_matrix(corpus, own)
        owner = np.repeat(np.arange(len(own)), np.diff(values.indptr))
        if is_counts:
            total = corpus.obs["total"].to_numpy(np.float64)[own]
            values.data = np.rint(np.expm1(values.data.astype(np.float64)) * (total[owner] / SCALE)).clip(min=1)
        files.append({"cells": len(own), "genes": _add_file(streams, values, is_counts=is_counts)})
    obs = corpus.obs.iloc[rows].assign(**dict.fromkeys(_OMITTED, ""))
    meta = corpus.meta | {"shard_cells": [], "packed": {"cells": len(rows)}}
    arrays = streams.compressed(level) | {
        "meta": _bytes(json.dumps({"version": FORMAT_VERSION, "corpus": meta, "files": files}).encode()),
        "genes": np.fromfile(corpus.path / "genes.parquet", np.uint8),
        "obs": _bytes(obs.reset_index(drop=True).to_parquet(compression="zstd")),
        "measured": np.packbits(corpus.measured, axis=1),
        "num_genes": np.array(corpus.num_genes),
    }
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _add_file(streams: Streams, values: sparse.csr_matrix, *, is_counts: bool) -> int:
    """Add the cells of one file; returns the number of expressed genes."""
    by_gene = values.tocsc()
    by_gene.sum_duplicates()  # and sort; steps of 0 have no code
    count = np.diff(by_gene.indptr)
    genes = np.argsort(-count, kind="stable")
    genes = genes[count[genes] > 0]
    by_gene = by_gene[:, genes]
    streams.add("gene", genes.astype(np.uint32))
    streams.add("cells_of_gene", np.diff(by_gene.indptr).astype(np.uint32))
    cell = by_gene.indices.astype(np.int64)
    step = np.diff(cell, prepend=-1)
    first = by_gene.indptr[:-1]
    step[first] = cell[first] + 1
    streams.add_numbers("step", step - 1)
    if is_counts:
        streams.add_numbers("count", by_gene.data.astype(np.int64) - 1)
    else:
        streams.add("half", by_gene.data.astype(np.float16))
    return len(genes)


def _write(arrays: dict[str, NDArray[Any]], folder: Path) -> None:
    described = json.loads(arrays["meta"].tobytes())
    if described["version"] != FORMAT_VERSION:
        raise ValueError("another format version")
    meta, num_genes = described["corpus"], int(arrays["num_genes"])
    obs = pd.read_parquet(io.BytesIO(arrays["obs"].tobytes()))
    measured = np.unpackbits(arrays["measured"], axis=1, count=num_genes).astype(bool)
    writer = ShardWriter(folder, 8192)
    start = 0
    streams = Streams.decompressed(arrays)
    for number, (file, is_counts) in enumerate(zip(described["files"], _is_counts(meta), strict=True)):
        total = obs["total"].to_numpy(np.float64)[start : start + file["cells"]]
        start += file["cells"]
        for rows in _rows(streams, file, total, num_genes, is_counts=is_counts):
            writer.add(rows, np.arange(len(rows)))
        if start != int((obs["file"].to_numpy() <= number).sum()):
            raise ValueError("cells are missing")
    writer.flush()
    streams.require_end()
    obs.to_parquet(folder / "obs.parquet")
    np.save(folder / "measured.npy", measured)
    arrays["genes"].tofile(folder / "genes.parquet")
    (folder / "corpus.json").write_text(json.dumps(meta | {"shard_cells": writer.sizes}, indent=1))


def _rows(
    streams: Streams, file: dict[str, int], total: NDArray[np.float64], num_genes: int, *, is_counts: bool
) -> Iterator[Rows]:
    """The cells of one file, if it has any."""
    if not file["cells"]:
        return
    genes = streams.take("gene", file["genes"]).astype(np.int64)
    count = streams.take("cells_of_gene", file["genes"]).astype(np.int64)
    entries, ends = int(count.sum()), np.cumsum(count)
    position = np.cumsum(streams.take_numbers("step", entries) + 1)
    before = np.concatenate([[0], position[ends[:-1] - 1]])
    cell = position - np.repeat(before, count) - 1
    if is_counts:
        counts = (streams.take_numbers("count", entries) + 1).astype(np.float64)
        value = np.log1p(counts * (SCALE / total)[cell]).astype(np.float32)
    else:
        value = streams.take("half", entries).astype(np.float32)
    matrix = sparse.csr_matrix((value, (cell, np.repeat(genes, count))), shape=(file["cells"], num_genes))
    matrix.sort_indices()
    sets = (GeneSet(np.ones(num_genes, bool)),)
    yield Rows(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data,
        sets,
        np.zeros(file["cells"], np.int32),
    )


def _is_counts(meta: dict[str, Any]) -> list[bool]:
    return [file.get("input") == "counts" for file in meta["files"]]


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)
