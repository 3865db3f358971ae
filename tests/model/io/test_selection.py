"""A file whose X has only variable genes, while raw has all of them: the numbers are those of all genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.genes.declared import AUTO
from scpalm.model.io.cells import open_cells
from scpalm.model.stream import CellReader

NUM_GENES, NUM_CELLS = 120, 20


def whole() -> AnnData:
    """Counts of all genes."""
    counts = np.random.default_rng(0).poisson(2.0, (NUM_CELLS, NUM_GENES)).astype(np.float32)
    names = [f"GENE{n}" for n in range(NUM_GENES)]
    return AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=names))


def selected(x: str, raw: str) -> AnnData:
    """30 genes in X (and a layer of counts), all genes in raw; ``counts``, ``log`` or ``scaled`` values."""
    cells = whole()
    counts = cells.X.toarray()
    log = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    values = {"counts": counts, "log": log, "scaled": (log - log.mean(0)) / (log.std(0) + 1e-6)}
    cells.X = sparse.csr_matrix(values[raw]) if raw != "scaled" else values[raw]
    cells.raw = cells
    cells.X = values[x]
    cells.layers["counts"] = counts
    return cells[:, :30].copy()


def read(source: AnnData | Path, bundle: Bundle) -> tuple[np.ndarray, str]:
    with open_cells(source) as cells:
        (part,) = CellReader(bundle, cells, AUTO)
        rows = part.rows
        dense = sparse.csr_matrix((rows.value, rows.gene_index, rows.indptr), (len(rows), NUM_GENES)).toarray()
        return dense, part.input.source


@pytest.mark.parametrize("form", ["memory", "h5ad", "zarr"])
@pytest.mark.parametrize("x", ["counts", "log", "scaled"])
@pytest.mark.parametrize("raw", ["counts", "log"])
def test_all_genes_of_raw_are_read(tiny_bundle: Bundle, tmp_path: Path, x: str, raw: str, form: str) -> None:
    expected, _ = read(whole(), tiny_bundle)
    cells = selected(x, raw)
    source: AnnData | Path = cells
    if form == "h5ad":
        source = tmp_path / "cells.h5ad"
        cells.write_h5ad(source)
    elif form == "zarr":
        source = tmp_path / "cells.zarr"
        cells.write_zarr(source)
    found, matrix = read(source, tiny_bundle)
    assert matrix == "raw"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_scaled_raw_is_not_read(tiny_bundle: Bundle) -> None:
    assert read(selected("counts", "scaled"), tiny_bundle)[1] == "X"


def test_genes_that_a_filter_left_out_are_no_selection(tiny_bundle: Bundle) -> None:
    cells = whole()
    cells.raw = cells
    assert read(cells[:, : NUM_GENES * 3 // 4].copy(), tiny_bundle)[1] == "X"


def test_the_name_of_the_matrix_overrides_the_choice(tiny_bundle: Bundle) -> None:
    with open_cells(selected("counts", "log"), layer="X") as cells:
        (part,) = CellReader(tiny_bundle, cells, AUTO)
    assert part.input.source == "X" and any("total_counts" in text for text in part.input.warnings)
