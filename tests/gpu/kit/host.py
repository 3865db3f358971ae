"""From counts in host memory to an answer in bytes: genes matched and normalised, computed, copied out."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scpalm.model.bundle import Bundle
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.base import available_cores
from tests.gpu.kit.report import Report
from tests.gpu.kit.sessions import Opened


def host_to_answer(report: Report, opened: Opened, bundle: Bundle, matrix: CellMatrix, batch_cells: int) -> None:
    """Add a line per number of threads that prepare cells, and one for the preparation alone."""
    chunks = list(matrix.parts(CHUNK_CELLS))
    Preparer(bundle.vocabulary, matrix.genes).prepare(chunks[0])
    started = time.perf_counter()
    preparer = Preparer(bundle.vocabulary, matrix.genes)
    for chunk in chunks:
        preparer.prepare(chunk)
    alone = matrix.num_cells / (time.perf_counter() - started)
    report.add("prepare_rate", "match genes and normalise, one thread", alone, "cells/s")
    name = f"{bundle.name}, {opened.name}: from counts to bytes"
    for threads in sorted({1, available_cores()}):
        rate = _rate(opened, bundle, chunks, batch_cells, threads)
        report.add("host_to_answer", f"{name}, {threads} thread(s) prepare", rate, "cells/s", predicted=threads * alone,
                   note="predicted: by the preparation alone")  # fmt: skip


def _rate(opened: Opened, bundle: Bundle, chunks: Sequence[CellMatrix], batch_cells: int, threads: int) -> float:
    preparer = Preparer(bundle.vocabulary, chunks[0].genes)
    preparer.prepare(chunks[0])  # decides what the values are, before threads share it
    num_cells = sum(chunk.num_cells for chunk in chunks)
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        rows = pool.map(lambda chunk: preparer.prepare(chunk).rows, chunks)
        for batch in _batches(rows, batch_cells):
            answer = io.BytesIO()
            np.save(answer, opened.session.encode(batch).embedding)
    return num_cells / (time.perf_counter() - started)


def _batches(rows: Iterator[Rows], batch_cells: int) -> Iterator[Rows]:
    held: list[Rows] = []
    for part in rows:
        held.append(part)
        if sum(map(len, held)) >= batch_cells:
            yield Rows.concat(held)
            held = []
    if held:
        yield Rows.concat(held)
