"""A file whose X has only variable genes, while raw has all of them: the numbers are those of all genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.values.declared import AUTO
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


FORMS = ("memory", "h5ad", "zarr")


def stored(cells: AnnData, folder: Path, form: str) -> AnnData | Path:
    if form == "memory":
        return cells
    path = folder / f"cells.{form}"
    (cells.write_h5ad if form == "h5ad" else cells.write_zarr)(path)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("x", ["counts", "log", "scaled"])
@pytest.mark.parametrize("raw", ["counts", "log"])
def test_all_genes_of_raw_are_read(tiny_bundle: Bundle, tmp_path: Path, x: str, raw: str, form: str) -> None:
    expected, _ = read(whole(), tiny_bundle)
    found, matrix = read(stored(selected(x, raw), tmp_path, form), tiny_bundle)
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


def with_totals(kind: str) -> AnnData:
    """30 of 120 genes, with each cell's total over all genes in ``obs``."""
    cells = whole()
    totals = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel().astype(int), index=cells.obs_names)
    cells = cells[:, :30].copy()
    text = totals.astype(str)
    kinds = {
        "numbers": totals,
        "text": text,
        "categories": text.astype("category"),
        "commas": totals.map("{:,}".format),
    }
    cells.obs["total_counts"] = kinds[kind]
    return cells


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["numbers", "text", "categories", "commas"])
def test_totals_are_used_however_they_are_written(tiny_bundle: Bundle, tmp_path: Path, kind: str, form: str) -> None:
    expected, _ = read(whole(), tiny_bundle)
    found, _ = read(stored(with_totals(kind), tmp_path, form), tiny_bundle)
    np.testing.assert_allclose(found[:, :30], expected[:, :30], rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("missing", [np.nan, 0, "no number"])
def test_a_cell_without_a_total_is_named(tiny_bundle: Bundle, tmp_path: Path, missing: float | str, form: str) -> None:
    cells = with_totals("text")
    cells.obs["total_counts"] = cells.obs["total_counts"].astype(object)
    cells.obs.loc["7", "total_counts"] = str(missing)
    if not isinstance(missing, str):
        cells.obs["total_counts"] = cells.obs["total_counts"].astype(float)
    with pytest.raises(InputError, match=r"Cell '7' has no total in obs\['total_counts'\]"):
        read(stored(cells, tmp_path, form), tiny_bundle)


def test_totals_that_no_cell_has_are_ignored(tiny_bundle: Bundle) -> None:
    cells = with_totals("numbers")
    expected, _ = read(cells[:, :30].copy(), tiny_bundle)
    cells.obs["total_counts"] = "unknown"
    found, _ = read(cells, tiny_bundle)
    assert not np.array_equal(found, expected)
