"""The steps of the host one by one: cells per second of CPU time of one core."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from scpalm.app.codecs.codec import DecodeOptions, Reader
from scpalm.app.codecs.registry import writer_for
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.parsing.messages import receive, send
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.parsing.wire import PartReader, pack_part
from scpalm.app.serving.opener import session_info
from scpalm.model.genes.rows import Rows
from scpalm.model.tasks.embed import Embed
from tests.bench.bench_parsing import best, bodies
from tests.bench.sleeping_device import ARROW, Bench, SleepingSession, feed, prepare_all

# A rate at which the session takes no time.
_WIDE_OPEN = 1 << 40


def own_limits(bench: Bench, folder: Path) -> float:
    """Print a line per step. Returns cells per second of one parser that reads Arrow."""
    print(f"\n| one core, cells of {bench.counts.nnz / bench.num_cells:,.0f} genes | cells a second of CPU time |")
    print("|---|---|")
    decoded = {
        name: line(f"read {name}", bench, partial(_read, reader, body))
        for name, reader, body in bodies(bench.counts, bench.genes, folder)
    }
    align = line("match genes, log1p CP10K (in the parser)", bench, lambda: prepare_each(bench))
    copied = line("copy from the parser to the service (both ends)", bench, lambda: through_pipe(bench))
    line("... of which join the rows of a batch", bench, lambda: Rows.concat(bench.rows))
    batched = line("queue, batch, finite check, return", bench, lambda: run_batches(bench, _WIDE_OPEN))
    answered = line("write the answer as Arrow", bench, lambda: encode_answer(bench))
    parser = 1 / (1 / decoded["arrow"] + 1 / align + 0.5 / copied)
    of_h5ad = 1 / (1 / decoded["h5ad"] + 1 / align + 0.5 / copied)
    service = 1 / (0.5 / copied + 1 / batched + 1 / answered)
    print(f"| **one parser, Arrow / h5ad** | **{parser:,.0f} / {of_h5ad:,.0f}** |")
    print(f"| **the service's process, Arrow** | **{service:,.0f}** |")
    for target in sorted({50_000.0, bench.rate}):
        print(f"| parsers for {target:,.0f} cells/s, Arrow / h5ad | {_needed(target, parser, of_h5ad)} |")
    return parser


def _read(reader: Reader, body: bytes | Path) -> None:
    for _ in reader.decode(body, DecodeOptions()):
        pass


def _needed(target: float, *rates: float) -> str:
    return " / ".join(str(math.ceil(target / rate)) for rate in rates)


def line(name: str, bench: Bench, run: Callable[[], object]) -> float:
    rate = bench.num_cells / best(run, 5)
    print(f"| {name} | {rate:,.0f} |", flush=True)
    return rate


def prepare_each(bench: Bench) -> None:
    prepare_all(bench.bundle, bench.counts, bench.genes)


def through_pipe(bench: Bench) -> None:
    """The cells as messages, both ends in this process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    head = UploadHead(bench.num_cells, bench.prepared[0].coverage, np.zeros(1, np.int32))
    measured = bench.prepared[0].rows.gene_sets[0].measured

    def write() -> None:
        for number, part in enumerate(bench.prepared):
            first = number == 0
            send(sender, pack_part(head if first else None, measured if first else None, part))

    thread = threading.Thread(target=write)
    thread.start()
    reader = PartReader(len(bench.bundle.vocabulary), None)
    for _ in bench.prepared:
        reader.read(receive(receiver))
    thread.join()
    receiver.close()
    sender.close()


def run_batches(bench: Bench, rate: float) -> SleepingSession:
    """Every cell once through queue, batcher and worker."""
    return asyncio.run(feed(bench, rate, seconds=0.0))


def encode_answer(bench: Bench) -> None:
    info = session_info(bench.bundle)
    task = Embed(info)
    values = np.ones((bench.num_cells, info.embedding_width), np.float32)
    writer = writer_for(ARROW)
    assert writer is not None
    names = [name for part in bench.prepared for name in part.cells]
    result = Result(names, (OutputValues(task.outputs[0], values),), {})
    with tempfile.TemporaryDirectory() as folder:
        writer.encode(result, Path(folder) / "answer")
