"""Which matrix is read by default, from each kind of store."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scpalm.model.io.cells import open_cells
from tests.model.small_cells import NUM_GENES, joined, small_counts

STORES = ["h5ad", "zarr", "memory"]


def opened(cells: AnnData, store: str, folder: Path) -> tuple[str, str, np.ndarray]:
    """Name of the matrix that is read, why, and its values."""
    path = folder / f"cells.{store}"
    if store == "h5ad":
        cells.write_h5ad(path)
    elif store == "zarr":
        cells.write_zarr(path)
    with open_cells(cells if store == "memory" else path) as file:
        chunks = list(file.chunks(1000))
    return chunks[0].origin.name, chunks[0].origin.why, joined(chunks)


def scaled() -> AnnData:
    cells = small_counts("dense")
    cells.X = (cells.X - cells.X.mean(axis=0)).astype(np.float32)
    return cells


@pytest.mark.parametrize("store", STORES)
@pytest.mark.filterwarnings("ignore")
class TestChoice:
    def test_x_with_counts(self, store: str, tmp_path: Path) -> None:
        cells = small_counts()
        cells.layers["counts"] = cells.X * 2
        assert opened(cells, store, tmp_path)[:2] == ("X", "")

    @pytest.mark.parametrize("layer", ["counts", "raw_counts", "umi", "X_counts"][:3])
    def test_a_layer_of_counts(self, store: str, layer: str, tmp_path: Path) -> None:
        cells = scaled()
        counts = small_counts().X.toarray()
        cells.layers["spliced"] = sparse.csr_matrix(counts * 3)
        cells.layers[layer] = sparse.csr_matrix(counts)
        name, why, values = opened(cells, store, tmp_path)
        assert name == layer and f"'{layer}'" in why
        np.testing.assert_array_equal(values, counts)

    def test_raw_with_counts(self, store: str, tmp_path: Path) -> None:
        cells = scaled()
        cells.raw = small_counts()
        cells = cells[:, :20].copy()
        name, _, values = opened(cells, store, tmp_path)
        assert name == "raw" and values.shape[1] == NUM_GENES

    def test_logs_in_raw_if_x_is_scaled(self, store: str, tmp_path: Path) -> None:
        cells, logs = scaled(), small_counts()
        logs.X = logs.X.log1p()
        cells.raw = logs
        assert opened(cells, store, tmp_path)[0] == "raw"

    def test_logs_in_x_come_before_other_logs(self, store: str, tmp_path: Path) -> None:
        cells = small_counts()
        cells.X = cells.X.log1p()
        cells.raw = cells.copy()
        cells.layers["counts"] = cells.X.copy()  # not what its name says
        assert opened(cells, store, tmp_path)[0] == "X"


@pytest.mark.parametrize("store", STORES)
@pytest.mark.filterwarnings("ignore")
def test_columns_of_the_file_are_known_along_with_those_of_raw(store: str, tmp_path: Path) -> None:
    cells = scaled()
    cells.raw = small_counts()
    cells = cells[:, [7, 3]].copy()
    path = tmp_path / f"cells.{store}"
    if store != "memory":
        (cells.write_h5ad if store == "h5ad" else cells.write_zarr)(path)
    with open_cells(cells if store == "memory" else path) as file:
        assert len(file.columns) == NUM_GENES
        assert file.columns.of_file is not None
        assert list(file.columns.of_file.names) == ["GENE7", "GENE3"]


@pytest.mark.parametrize("note, base", [({"base": 2.0}, 2.0), ({"base": None}, np.e), ({}, np.e), (None, None)])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.filterwarnings("ignore")
def test_the_base_of_the_logarithm_that_scanpy_noted(
    store: str, note: dict[str, float | None] | None, base: float | None, tmp_path: Path
) -> None:
    cells = small_counts()
    cells.X = cells.X.log1p()
    if note is not None:
        cells.uns["log1p"] = note
    path = tmp_path / f"cells.{store}"
    if store != "memory":
        with anndata.settings.override(write_csr_csc_indices_with_min_possible_dtype=False):
            (cells.write_h5ad if store == "h5ad" else cells.write_zarr)(path)
    with open_cells(cells if store == "memory" else path) as file:
        assert next(file.chunks(5)).origin.log_base == base
