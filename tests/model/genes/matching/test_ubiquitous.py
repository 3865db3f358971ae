from __future__ import annotations

import numpy as np

from scpalm.model.bundle import Bundle
from scpalm.model.genes.matching.ubiquitous import MISNAMED, UBIQUITOUS
from scpalm.model.genes.prepare import Preparer
from tests.model.small_genes import cell_counts, matrix_of

VOCABULARY = Bundle.load().vocabulary


def warned(names: list[str], num_cells: int) -> bool:
    counts = cell_counts(num_cells, len(names), depth=3000)
    counts[:, : len(UBIQUITOUS)] += 2
    return MISNAMED in Preparer(VOCABULARY, names).prepare(matrix_of(counts, names)).input.warnings


def test_names_that_do_not_belong_to_their_columns_are_doubted() -> None:
    others = [symbol for symbol in VOCABULARY.symbols if symbol not in UBIQUITOUS][:1500]
    names = [*UBIQUITOUS, *others]
    assert all(name in VOCABULARY.by_symbol for name in UBIQUITOUS)
    assert not warned(names, 20)
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    assert warned(shuffled, 20)
    assert not warned(shuffled, 5)  # too few cells to tell
    assert not warned(others[::-1], 20)  # none of the genes
