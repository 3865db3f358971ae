from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scpalm.model.errors import InputError, UnreadableError
from scpalm.training.evaluation.common.dataset import load_dataset


def table(cells: int = 20) -> anndata.AnnData:
    values = np.random.default_rng(0).poisson(2.0, size=(cells, 6)).astype(np.float32)
    values[:, 0] += 1
    names = [f"cell{i}" for i in range(cells)]
    return anndata.AnnData(
        sparse.csr_matrix(values),
        obs=pd.DataFrame({"cell_type": ["B", "T"] * (cells // 2)}, index=names),
        var=pd.DataFrame({"ensembl_id": ["ENSG00000000001", *[""] * 5]}, index=[f"G{i}" for i in range(6)]),
    )


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_matrix_and_labels(tmp_path: Path, kind: str) -> None:
    cells = table()
    dense = cells.X.toarray()
    cells.X = {"csr": cells.X, "csc": sparse.csc_matrix(dense), "dense": dense}[kind]
    cells.write_h5ad(tmp_path / "blood.h5ad")
    dataset = load_dataset(tmp_path / "blood.h5ad")
    assert dataset.name == "blood"
    matrix = dataset.matrix
    back = sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=dense.shape).toarray()
    np.testing.assert_array_equal(back, dense)
    assert matrix.genes == [f"G{i}" for i in range(6)]
    assert matrix.ensembl_ids == ["ENSG00000000001", *[""] * 5]
    assert matrix.cells[3] == "cell3"
    assert dataset.labels.names == ("B", "T")


@pytest.mark.parametrize("text", [False, True])
def test_duplicates_are_dropped_unless_wanted(tmp_path: Path, *, text: bool) -> None:
    cells = table()
    flag = pd.Series([True, False, True, *[False] * 17], index=cells.obs_names)
    cells.obs["is_duplicate"] = flag.astype(str) if text else flag
    cells.write_h5ad(tmp_path / "a.h5ad")
    dataset = load_dataset(tmp_path / "a.h5ad")
    assert dataset.duplicates_dropped == 2
    assert list(dataset.matrix.cells) == ["cell1", *[f"cell{i}" for i in range(3, 20)]]
    assert len(dataset.labels.codes) == 18
    assert load_dataset(tmp_path / "a.h5ad", drop_duplicates=False).matrix.num_cells == 20


def test_a_layer_in_place_of_x(tmp_path: Path) -> None:
    cells = table()
    cells.layers["counts"] = cells.X * 3
    cells.write_h5ad(tmp_path / "a.h5ad")
    layer, x = load_dataset(tmp_path / "a.h5ad", layer="counts"), load_dataset(tmp_path / "a.h5ad")
    ratio = layer.matrix.data / x.matrix.data
    assert set(ratio.tolist()) == {3.0}
    with pytest.raises(InputError, match="no layer 'raw'; it has: counts"):
        load_dataset(tmp_path / "a.h5ad", layer="raw")


def test_a_missing_label_column_lists_the_existing_ones(tmp_path: Path) -> None:
    table().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="no column 'celltype' in obs; it has: cell_type") as caught:
        load_dataset(tmp_path / "a.h5ad", "celltype")
    assert caught.value.field == "celltype"


def test_labels_that_are_all_missing(tmp_path: Path) -> None:
    cells = table()
    cells.obs["cell_type"] = pd.Series([np.nan] * 20, index=cells.obs_names, dtype="float64")
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="No cell has a label in 'cell_type'"):
        load_dataset(tmp_path / "a.h5ad")


def test_values_are_checked(tmp_path: Path) -> None:
    cells = table()
    cells.X[4, 2] = -1
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="gene 'G2' in cell 'cell4' is negative"):
        load_dataset(tmp_path / "a.h5ad")


def test_missing_files_and_files_that_are_not_h5ad(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="There is no file"):
        load_dataset(tmp_path / "nothing.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    with pytest.raises(UnreadableError, match="could not be read as h5ad"):
        load_dataset(tmp_path / "text.h5ad")
    whole = tmp_path / "whole.h5ad"
    table().write_h5ad(whole)
    (tmp_path / "half.h5ad").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UnreadableError, match="could not be read as h5ad"):
        load_dataset(tmp_path / "half.h5ad")


def test_no_x(tmp_path: Path) -> None:
    cells = table()
    anndata.AnnData(obs=cells.obs, var=cells.var).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="has no X"):
        load_dataset(tmp_path / "a.h5ad")


def test_cells_are_kept_by_a_column(tmp_path: Path) -> None:
    cells = table()
    cells.obs["call"] = ["single"] * 14 + ["doublet"] * 6
    cells.obs["is_duplicate"] = [True] * 2 + [False] * 18
    cells.write_h5ad(tmp_path / "a.h5ad")
    dataset = load_dataset(tmp_path / "a.h5ad", keep={"call": "single"})
    assert list(dataset.matrix.cells) == [f"cell{i}" for i in range(2, 14)]
    assert len(dataset.labels.codes) == 12
    with pytest.raises(InputError, match="no column 'batch'"):
        load_dataset(tmp_path / "a.h5ad", keep={"batch": "1"})
    with pytest.raises(InputError, match="0 cells"):
        load_dataset(tmp_path / "a.h5ad", keep={"call": "unheard of"})
