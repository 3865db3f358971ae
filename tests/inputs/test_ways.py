"""Cells written in any of many ways give the rows of the clean cells, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.prepare import Prepared, Preparer
from scpalm.model.genes.values.totals import COMPLETE_GENES
from scpalm.model.io.anndata import AnnDataCells
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.model.io.other_formats.convert import as_h5ad
from tests.inputs.ways import FILES, WAYS, Clean
from tests.model.small_genes import cell_counts

VOCABULARY = Bundle.load().vocabulary
CELLS = 8


def clean(num_genes: int, seed: int, depth: float = 3000.0) -> Clean:
    """Cells of genes of the packaged model, with counts in all cells."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(VOCABULARY))[:num_genes])
    counts = cell_counts(CELLS, num_genes, seed, depth)
    symbols = [VOCABULARY.symbols[i] for i in chosen]
    return Clean(counts, symbols, [VOCABULARY.ensembl_ids[i] for i in chosen], counts.sum(axis=1))


def rows_of(cells: AnnData) -> NDArray[np.float64]:
    """``[B, G]`` what the network gets. Raises InputError."""
    with AnnDataCells(cells) as source:
        return table_of(Preparer(VOCABULARY, source.columns).prepare(next(source.chunks(512))))


def table_of(prepared: Prepared) -> NDArray[np.float64]:
    rows = prepared.rows
    table = sparse.csr_matrix((rows.value, rows.gene_index, rows.indptr), (len(rows), len(VOCABULARY)))
    made: NDArray[np.float64] = table.toarray().astype(np.float64)
    return made


def outcome(name: str, cells: Clean, seed: int) -> str:
    expected = rows_of(cells.adata())
    try:
        found = rows_of(WAYS[name][0](cells, np.random.default_rng(seed)))
    except InputError:
        return "refused"
    close = found.shape == expected.shape and np.allclose(found, expected, rtol=2e-3, atol=2e-3)
    return "same" if close else "wrong"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WAYS)
def test_all_genes_are_read_or_refused_as_they_should_be(name: str) -> None:
    expected = WAYS[name][1]
    found = outcome(name, clean(COMPLETE_GENES + 300, seed=1, depth=8000.0), seed=2)
    assert found != "wrong"
    assert expected in ("either", found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_kinds_of_files_give_the_rows_of_the_clean_cells(name: str, tmp_path: Path) -> None:
    cells = clean(COMPLETE_GENES + 300, seed=4)
    with H5adFile(as_h5ad(FILES[name](cells, tmp_path), tmp_path)) as file:
        found = table_of(Preparer(VOCABULARY, file.columns).prepare(next(file.chunks(512))))
    np.testing.assert_array_equal(found, rows_of(cells.adata()))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(WAYS)),
    num_genes=st.integers(220, 1200),
    depth=st.sampled_from([1500.0, 5000.0, 50_000.0]),
    seed=st.integers(0, 10**6),
)
def test_a_selection_of_genes_is_never_read_wrongly(name: str, num_genes: int, depth: float, seed: int) -> None:
    assert outcome(name, clean(num_genes, seed, depth), seed) != "wrong"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, (_, expected) in WAYS.items() if expected == "same"])
def test_a_single_cell_is_read_as_among_others_or_refused(name: str) -> None:
    cells = clean(COMPLETE_GENES + 300, seed=3, depth=8000.0)
    written = WAYS[name][0](cells, np.random.default_rng(0))
    together = rows_of(written)
    try:
        alone = rows_of(written[2:3].copy())
    except InputError:
        return
    np.testing.assert_allclose(alone[0], together[2], rtol=2e-3, atol=2e-3)
