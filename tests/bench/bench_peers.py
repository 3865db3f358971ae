"""Cells per second on the CPU: scPaLM, PCA, and networks of the sizes that other models publish. One script, one run.

    PYTHONPATH=. python tests/bench/bench_peers.py [--file CELLS.h5ad] [--cells 256] [--seconds 5] [--only scPaLM]

All rows embed the same cells: a file, or the 559 real cells of celltypist's sample (random ones if it is missing). The
networks of others have random weights and are built from scPaLM's transformer blocks, so this compares sizes, not
quality, and not the original code, which may be slower. Each row starts from cells in memory. Tokenising and the
normalisation of PCA and scVI's input are included as far as they are a lookup or a copy.

Sizes:
    PCA: scikit-learn, 50 components of the 2,000 most variable genes, log1p CP10K.
    scVI: Lopez et al. 2018 (10.1038/s41592-018-0229-2) and the defaults of scvi-tools 1.x: one hidden layer of 128, 10
        latent dimensions, two heads; here on 2,000 genes.
    scGPT: Cui et al. 2024 (10.1038/s41592-024-02201-0): 12 layers, width 512, 8 heads, feed-forward 512, 1,200 genes.
    Geneformer V1: Theodoris et al. 2023 (10.1038/s41586-023-06139-9): 6 layers, width 256, 4 heads, feed-forward 512,
        2,048 tokens.
    Geneformer 12L-95M: config.json of gf-12L-95M-i4096 on huggingface.co/ctheodoris/Geneformer: 12 layers, width 512, 8
        heads, feed-forward 1,024, 4,096 tokens.
    scPaLM mini: the packaged model with ONNX Runtime, as served. base: random weights, PyTorch.

With one thread, seconds are those of CPU time, which other work on the machine affects less; otherwise of a clock. The
best call counts. "of the ceiling": FLOP/s relative to one large float32 matrix product, measured in the same way just
before each row. Energy is read from /sys/class/powercap where the machine has it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import torch

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.base import available_cores
from scpalm.model.sessions.onnx import OnnxSession
from scpalm.model.sessions.shapes import split
from tests.bench.bench_service import as_rows, real_cells
from tests.bench.peers import Peer, scpalm, small_models, transformers
from tests.gpu.kit.profile_onnx import print_profile


def joules() -> float | None:
    """Energy counters of all processor packages, or None if they cannot be read."""
    files = sorted(Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj"))
    try:
        return sum(int(file.read_text()) for file in files) / 1e6 if files else None
    except OSError:
        return None


def clock_of(threads: int) -> Callable[[], float]:
    """CPU time for one thread, wall time for several."""
    return time.process_time if threads == 1 else time.perf_counter


def ceiling_of(threads: int, size: int = 2048) -> float:
    """FLOP/s of a matrix product with this number of threads, best of five."""
    torch.set_num_threads(threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    clock, times = clock_of(threads), []
    for _ in range(6):
        started = clock()
        torch.mm(a, b)
        times.append(clock() - started)
    return 2 * size**3 / min(times[1:])


@dataclass(frozen=True)
class Found:
    """Cells per second, share of the ceiling, and joules per cell if they can be read."""

    rate: float
    share: float
    joules: float | None


def measure(peer: Peer, rows: Rows, threads: int, seconds: float) -> Found:
    """The best of the calls that fit into ``seconds``, at least one."""
    ceiling = ceiling_of(threads)
    embed, clock = peer.open(threads), clock_of(threads)
    size = min(peer.batch, len(rows))
    embed(rows.slice(0, size))
    times: list[float] = []
    start, before, until = 0, joules(), time.perf_counter() + seconds
    while not times or time.perf_counter() + times[-1] < until:
        part = rows.slice(start, start + size)
        started = clock()
        embed(part)
        times.append(clock() - started)
        start = start + size if start + 2 * size <= len(rows) else 0
    after = joules()
    rate = size / min(times)
    energy = None if before is None or after is None else (after - before) / (size * len(times))
    return Found(rate, rate * peer.flop / ceiling, energy)


def table(peers: Iterator[Peer], rows: Rows, seconds: float, only: str) -> None:
    """Measure the models one after another and print a line for each."""
    cores = available_cores()
    print(f"| model | tokens | GFLOP a cell | cells/s, 1 thread | {cores} threads | of the ceiling | J a cell |")
    print("|---|---|---|---|---|---|---|")
    for peer in peers:
        if only.lower() not in peer.name.lower():
            continue
        found = [measure(peer, rows, threads, seconds) for threads in (1, cores)]
        rates = " | ".join(f"{one.rate:,.0f}" if one.rate >= 20 else f"{one.rate:.2f}" for one in found)
        shares = ", ".join(f"{one.share:.1%}" for one in found)
        energy = "-" if found[-1].joules is None else f"{found[-1].joules:.3g}"
        print(f"| {peer.name} | {peer.tokens} | {peer.flop / 1e9:.4g} | {rates} | {shares} | {energy} |", flush=True)
    for threads in (1, cores):
        print(f"matrix product, float32, {threads} threads: {ceiling_of(threads) / 1e9:,.0f} GFLOP/s")


def profile(rows: Rows) -> None:
    """What takes the time in one batch of scPaLM mini."""
    bundle = Bundle.load()
    session = OnnxSession(bundle, device="cpu", threads=1)
    batches = list(split(rows, session._corrections))
    usual = Counter(batch.gene_index.shape for batch in batches).most_common(1)[0][0]
    batch = next(batch for batch in batches if batch.gene_index.shape == usual)
    print(f"\nscPaLM mini, one batch of {usual[0]} cells, padded to {usual[1]:,} genes, 1 thread:")
    print_profile(bundle.file("embed.onnx"), batch.feed(), "embedding")
    encoded = session.encode(rows.slice(0, min(16, len(rows))), tokens=False)
    print(f"\n... and of {len(encoded)} cells through both encoders:")
    print_profile(bundle.file("encoder.onnx"), {"f": encoded.f, "log_length": encoded.log_length}, "h_C and codes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="an h5ad file with counts; default: celltypist's sample")
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0, help="per line and number of threads")
    parser.add_argument("--only", default="", help="only models whose name has this text")
    options = parser.parse_args()
    bundle = Bundle.load()
    cells, what = real_cells(bundle) if options.file is None else (anndata.read_h5ad(options.file), options.file.name)
    chosen = np.random.default_rng(0).permutation(cells.n_obs)[: options.cells]
    rows = as_rows(cells[np.sort(chosen)].copy(), bundle)
    print(f"{len(rows)} cells, {rows.lengths().mean():,.0f} genes each: {what}", flush=True)

    def peers(folder: Path) -> Iterator[Peer]:
        yield from small_models(rows, len(bundle.vocabulary))
        yield from scpalm(rows, folder)
        yield from transformers()

    with tempfile.TemporaryDirectory() as folder:
        table(peers(Path(folder)), rows, options.seconds, options.only)
    if options.only.lower() in "scpalm mini":
        profile(rows)


if __name__ == "__main__":
    main()
