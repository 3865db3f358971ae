"""Speed of parsing in one process, for cells with 2,000 expressed genes of 20,000.

"decoded": bytes -> checked CellMatrix. "prepared": also matched to the vocabulary and normalised for the device.
Times are CPU seconds, the best of ``--repeats``, which reduces the effect of other work. Run it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_parsing.py [--cells 2048 --expressed 2000 --repeats 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from scipy import sparse

from scpalm.app.codecs.codec import DecodeOptions, Reader
from scpalm.app.codecs.registry import reader_for
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer

TARGETS = {"h5ad": 20_000, "json": 2_500, "arrow": 500_000}


def make_cells(genes: list[str], cells: int, expressed: int) -> sparse.csr_matrix:
    """Counts of 1 to 8, sorted gene indices."""
    random = np.random.default_rng(0)
    columns = np.sort(np.argsort(random.random((cells, len(genes))), axis=1)[:, :expressed], axis=1)
    counts = random.integers(1, 9, columns.size).astype(np.float32)
    indptr = np.arange(cells + 1) * expressed
    return sparse.csr_matrix((counts, columns.ravel().astype(np.int32), indptr), shape=(cells, len(genes)))


def bodies(counts: sparse.csr_matrix, genes: list[str], folder: Path) -> Iterator[tuple[str, Reader, bytes | Path]]:
    """The name, the reader and a body of each format."""
    frame = anndata.AnnData(counts, var=pd.DataFrame(index=genes))
    frame.write_h5ad(folder / "cells.h5ad")
    yield "h5ad", _reader("application/x-hdf5"), folder / "cells.h5ad"
    members = {"genes": genes, "indptr": counts.indptr.tolist(), "indices": counts.indices.tolist()}
    yield "json", _reader("application/json"), orjson.dumps(members | {"data": counts.data.astype(int).tolist()})
    offsets = pa.array(counts.indptr.astype(np.int32))
    columns = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (counts.indices, counts.data)]
    table = pa.table(dict(zip(("indices", "data"), columns, strict=True)))
    table = table.replace_schema_metadata({"genes": orjson.dumps(genes)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    yield "arrow", _reader("application/vnd.apache.arrow.stream"), sink.getvalue().to_pybytes()


def _reader(media_type: str) -> Reader:
    reader = reader_for(media_type)
    assert reader is not None
    return reader


def best(run: Callable[[], object], repeats: int) -> float:
    """The smallest number of CPU seconds of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cells", type=int, default=2048)
    options.add_argument("--expressed", type=int, default=2000)
    options.add_argument("--repeats", type=int, default=5)
    asked = options.parse_args()
    vocabulary = Bundle.load(DEFAULT_BUNDLE).vocabulary
    genes = vocabulary.symbols[:20_000]
    counts = make_cells(genes, asked.cells, asked.expressed)
    print(f"{'format':8}{'MB':>8}{'decoded, cells/s':>20}{'prepared, cells/s':>20}{'target':>10}")
    with tempfile.TemporaryDirectory(prefix="scpalm-bench-") as folder:
        for name, reader, body in bodies(counts, genes, Path(folder)):
            preparer = Preparer(vocabulary, genes)

            def decode(reader: Reader = reader, body: bytes | Path = body) -> list[CellMatrix]:
                return list(reader.decode(body, DecodeOptions()))

            def prepare(decode: Callable[[], list[CellMatrix]] = decode, preparer: Preparer = preparer) -> None:
                for matrix in decode():
                    for part in matrix.parts(CHUNK_CELLS):
                        preparer.prepare(part)

            size = body.stat().st_size if isinstance(body, Path) else len(body)
            rates = [asked.cells / best(run, asked.repeats) for run in (decode, prepare)]
            print(f"{name:8}{size / 1e6:8.1f}{rates[0]:20,.0f}{rates[1]:20,.0f}{TARGETS[name]:10,}")


if __name__ == "__main__":
    main()
