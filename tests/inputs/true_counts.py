"""How often true counts are refused as something else: whole files, panels, thinned counts and single cells.

    PYTHONPATH=. python tests/inputs/true_counts.py FILE.h5ad ...

Each file must hold raw counts. Prints a table of what was refused or named in a warning.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.spread import check_spread
from scpalm.model.io.cells import open_cells

CELLS = 64
PANELS, SHARES = (150, 300, 1000), (0.3, 0.1, 0.03)


def variants(matrix: CellMatrix, random: np.random.Generator) -> Iterator[tuple[str, CellMatrix]]:
    yield "whole", matrix
    for size in PANELS:
        if size < matrix.num_genes:
            outside = np.ones(matrix.num_genes, bool)
            outside[random.choice(matrix.num_genes, size, replace=False)] = False
            yield f"panel of {size}", matrix.without(outside)
    for share in SHARES:
        thinned = random.binomial(matrix.data.astype(np.int64), share).astype(np.float32)
        yield f"thinned to {share:.0%}", replace(matrix, data=thinned)
    for row in range(matrix.num_cells):
        yield "a cell alone", matrix.select(np.array([row]))


def main() -> None:
    tried, refused, warned = Counter[str](), Counter[str](), Counter[str]()
    for path in map(Path, sys.argv[1:]):
        with open_cells(path) as source:
            matrix = next(iter(source.chunks(CELLS)))
        for name, variant in variants(matrix, np.random.default_rng(0)):
            tried[name] += 1
            try:
                warned[name] += bool(check_spread(variant))
            except InputError as error:
                refused[name] += 1
                print(f"{path.name}, {name}: {error.detail}", file=sys.stderr)
    print("| counts | tried | refused | named in a warning |\n|---|---|---|---|")
    for name, number in tried.items():
        print(f"| {name} | {number} | {refused[name]} | {warned[name]} |")


if __name__ == "__main__":
    main()
