"""A range of rows is read from either file format without reading the rest."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.io.cells import column_of, open_cells
from scpalm.model.io.hdf5.h5ad import H5adFile
from tests.model.small_cells import NUM_CELLS, dense, joined, small_counts

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")


def written(folder: Path, cells: anndata.AnnData, store: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"cells.{store}"
    cells.write_h5ad(path) if store == "h5ad" else cells.write_zarr(path)
    return path


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_rows_equal_a_slice_of_the_whole(tmp_path: Path, store: str, kind: str) -> None:
    cells = small_counts(kind)
    cells.layers["twice"] = cells.X * 2
    path = written(tmp_path, cells, store)
    for layer, factor in ((None, 1), ("twice", 2)):
        with open_cells(path, layer=layer) as file:
            for start, stop in ((0, 1), (3, 4), (5, NUM_CELLS), (0, NUM_CELLS)):
                part = file.rows(start, stop)
                np.testing.assert_array_equal(joined([part]), factor * dense(cells)[start:stop])
                assert list(part.cells) == list(cells.obs_names[start:stop]) and part.cells_in_all == NUM_CELLS


def test_names_that_are_categories_are_read_by_rows(tmp_path: Path) -> None:
    path = written(tmp_path, small_counts(), "h5ad")
    with h5py.File(path, "r+") as file:
        names = file["obs/_index"][:]
        del file["obs/_index"]
        group = file["obs"].create_group("_index")
        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        group["codes"] = np.arange(NUM_CELLS, dtype=np.int8)
        group.create_dataset("categories", data=names, dtype=h5py.string_dtype())
    with H5adFile(path) as cells:
        assert list(cells.rows(4, 6).cells) == ["cell-4", "cell-5"]


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_rows_of_a_matrix_stored_by_columns_are_refused(tmp_path: Path, store: str) -> None:
    with open_cells(written(tmp_path, small_counts("csc"), store)) as file, pytest.raises(InputError, match="tocsr"):
        file.rows(0, 2)


def test_row_pointers_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, small_counts(), "h5ad")
    with h5py.File(path, "r+") as file:
        file["X/indptr"][2] = 10_000
    with H5adFile(path) as cells:
        cells.rows(5, 7)
        with pytest.raises(InputError, match="indptr"):
            cells.rows(1, 2)


def test_h5ad_and_zarr_name_genes_in_the_same_way(tmp_path: Path) -> None:
    cells = small_counts()
    symbols = list(cells.var_names)
    cells.var["feature_name"] = symbols
    cells.var_names = [f"ENSG{number:011d}" for number in range(cells.n_vars)]
    named = []
    for store in ("h5ad", "zarr"):
        with open_cells(written(tmp_path, cells, store)) as file:
            named.append((file.columns.names, file.columns.ensembl_ids))
    assert named[0] == named[1] == (symbols, list(cells.var_names))


@pytest.mark.parametrize("store", ["h5ad", "zarr", "memory"])
def test_the_error_for_a_missing_column_lists_those_that_exist(tmp_path: Path, store: str) -> None:
    cells = small_counts()
    cells.obs = cells.obs[[]]
    for columns, listed in (
        ([], "no columns at all"),
        (["donor", "cell_types"], "mean 'cell_types'.*donor, cell_types"),
    ):
        cells.obs[columns] = "a"
        source = cells if store == "memory" else written(tmp_path / str(len(columns)), cells, store)
        with open_cells(source) as file, pytest.raises(InputError, match=f"no column 'cell_type'.*{listed}"):
            column_of(file, "cell_type")
