"""Cells per second of the bare session, with and without the token encoders; medians of three.

python -m tests.bench.bench_session [--bundle BUNDLE] [--genes 1000]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import scpalm
from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.model.sessions.shapes import synthetic_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--genes", type=int, default=1000)
    args = parser.parse_args()
    print(f"{'threads':>7} {'computed':>10} {'cells/s':>8}")
    for threads in (1, 2):
        session = scpalm.load(args.bundle, "cpu", threads=threads).session
        session.warm_up()
        for computed, tokens, cells in (("embedding", False, 2048), ("all", True, 512)):
            rows = synthetic_rows(session.info.num_genes, cells, args.genes)
            session.encode(rows, tokens=tokens)
            rates = []
            for _ in range(3):
                started = time.perf_counter()
                session.encode(rows, tokens=tokens)
                rates.append(cells / (time.perf_counter() - started))
            print(f"{threads:>7} {computed:>10} {np.median(rates):>8,.0f}")


if __name__ == "__main__":
    main()
