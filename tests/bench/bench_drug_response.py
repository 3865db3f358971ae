"""Time of drug response compared with the embedding: cells x all known drugs, with the head of a bundle.

Cells have random counts; every timing is the best of ``--repeats``. Run it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_drug_response.py [--bundle DIR --cells 1000 --genes 2000 --repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.drug_response.session import DrugResponseSession
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Session, open_session


def make_rows(bundle: Bundle, panel: list[str], cells: int, expressed: int, seed: int = 0) -> Rows:
    """Random cells with ``expressed`` genes each, which include half of the panel."""
    random = np.random.default_rng(seed)
    genes = bundle.vocabulary.symbols
    place = np.array([genes.index(name) for name in panel if name in set(genes)])
    indices = []
    for _ in range(cells):
        own = np.union1d(random.choice(place, len(place) // 2, replace=False), random.choice(len(genes), expressed))
        indices.append(own.astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum([len(own) for own in indices])]).astype(np.int64)
    counts = random.poisson(1.0, indptr[-1]).astype(np.float32) + 1
    names = [f"cell-{i}" for i in range(cells)]
    return prepare(CellMatrix(indptr, np.concatenate(indices), counts, genes, names), bundle.vocabulary).rows


def best(repeats: int, function: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(
    bundle: Bundle, encoder: Session, head: DrugResponseSession, cells: int, options: argparse.Namespace
) -> None:
    """Print one line of the table."""
    rows, drugs = make_rows(bundle, head.panel.genes, cells, options.genes), head.drugs.resolve([])
    embed_all = best(options.repeats, lambda: encoder.encode(rows))
    panel = head.panel.only(rows)
    embed = best(options.repeats, lambda: encoder.encode(panel))
    h_c = encoder.encode(panel).embedding
    fresh = DrugResponseSession(bundle)
    first = best(1, lambda: fresh.predict(h_c[:1], panel.slice(0, 1), fresh.drugs.resolve([])))
    answer = best(options.repeats, lambda: head.predict(h_c, panel, drugs))
    ratio = (embed + answer) / embed_all
    print(f"{cells:6,} {embed_all:13.2f} s {embed:9.2f} s {first:10.2f} s {answer:6.2f} s {ratio:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    start = time.perf_counter()
    head = DrugResponseSession(bundle)
    opened = time.perf_counter() - start
    encoder = open_session(bundle, device="cpu")
    print(f"{len(head.drugs.resolve([]))} drugs, {', '.join(head.settings)}; opened in {opened:.2f} s")
    print(f"{'cells':>6} {'h_C, all genes':>15} {'h_C, panel':>11} {'first drugs':>12} {'head':>8} {'all / h_C':>10}")
    for cells in (561, options.cells):
        measure(bundle, encoder, head, cells, options)


if __name__ == "__main__":
    main()
