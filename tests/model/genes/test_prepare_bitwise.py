"""The fast preparation of rows gives the same bits as the plain one, which handles one entry at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import Preparer
from tests.model.small_genes import fillers, matrix_of, small_vocabulary

VOCABULARY = small_vocabulary()
REPEATED = [*fillers(30), "CD3E", "ENSG00000000002", "unknown_gene", "GENE3-1", "GENE3-2", "GENE7.1"]
DISTINCT = [*fillers(30), "CD3E", "ENSG00000000002", "unknown_gene"]
COMPLETE = [*REPEATED, *(f"GENE{n % 40}-9" for n in range(5_000))]
CELLS = 20
Entry = tuple[int, np.float32]


def literally(matrix: CellMatrix, kind: str, whole_cell: float | None) -> list[list[Entry]]:
    """Rows as lists of (vocabulary position, value), computed from the definition in float64."""
    target = align(VOCABULARY, matrix.gene_columns).target
    rows = []
    for cell in range(matrix.num_cells):
        entries = range(matrix.indptr[cell], matrix.indptr[cell + 1])
        linear = {
            e: np.float64(matrix.data[e]) if kind == "counts" else np.expm1(np.float64(matrix.data[e])) for e in entries
        }
        total = np.float64(0)
        for entry in entries:
            total += linear[entry]
        if whole_cell is not None:
            total = np.float64(whole_cell)
        if matrix.totals is not None and kind == "counts":
            total = matrix.totals[cell]
        sums: dict[int, np.float64] = {}
        for entry in entries:
            gene = int(target[matrix.indices[entry]])
            if gene >= 0 and linear[entry] > 0:
                sums[gene] = sums[gene] + linear[entry] if gene in sums else linear[entry]
        scale = 1e4 / total
        rows.append([(gene, np.float32(np.log1p(np.array([sums[gene] * scale]))[0])) for gene in sorted(sums)])
    return rows


def table(kind: str, num_genes: int, seed: int) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    counts = random.poisson(random.gamma(0.5, 2.0, num_genes), (CELLS, num_genes)).astype(np.float64)
    counts[:, 1] += 1
    normal = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    return {"counts": counts, "log": normal, "expected": counts * 33.37}[kind]


@pytest.mark.parametrize("genes", [REPEATED, DISTINCT, COMPLETE], ids=["repeated", "distinct", "complete"])
@pytest.mark.parametrize("kind", ["counts", "log", "expected"])
@pytest.mark.parametrize("variant", ["plain", "stored zeros", "totals"])
@pytest.mark.parametrize("few", [0, 1 << 20], ids=["many entries", "few entries"])
def test_rows_equal_the_literal_definition_bit_for_bit(
    genes: list[str], kind: str, variant: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.model.genes.prepare._FEW_ENTRIES", few)
    matrix = matrix_of(table(kind, len(genes), seed=len(genes)), genes)
    if variant == "stored zeros":
        data = matrix.data.copy()
        data[::7] = 0.0
        matrix = replace(matrix, data=data)
    if variant == "totals":
        matrix = replace(matrix, totals=np.arange(1234.5, 1234.5 + CELLS))
    prepared = Preparer(VOCABULARY, genes).prepare(matrix)
    rows, report = prepared.rows, prepared.input
    assert report.detected == ("log" if kind == "log" else "counts")
    expected = literally(matrix, report.detected, report.total if report.divide_by == "total" else None)
    for cell, entries in enumerate(expected):
        own = slice(rows.indptr[cell], rows.indptr[cell + 1])
        np.testing.assert_array_equal(rows.gene_index[own], [gene for gene, _ in entries])
        np.testing.assert_array_equal(rows.value[own], np.array([value for _, value in entries], np.float32))
