from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5 import stored_matrix
from scpalm.model.io.hdf5.h5ad import H5adFile
from tests.model.small_cells import NUM_CELLS, NUM_GENES, dense, joined, small_counts


def obs(file: H5adFile, column: str) -> NDArray[np.generic]:
    values = file.obs_column(column)
    assert values is not None
    return values


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "float16", "bool", ">f4"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_reads_what_anndata_wrote(tmp_path: Path, kind: str, dtype: str, size: int) -> None:
    cells = small_counts("dense", dtype)
    path = tmp_path / "cells.h5ad"
    if kind == "dense" or dtype in ("float16", ">f4"):  # scipy has no sparse form of these two
        cells.write_h5ad(path)
    else:
        cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](cells.X)
        cells.write_h5ad(path, compression="gzip")
    with H5adFile(path) as file:
        chunks = list(file.chunks(size))
        assert file.num_cells == NUM_CELLS
        assert file.cells == list(cells.obs_names)
        assert file.columns.names == list(cells.var_names)
        assert file.columns.ensembl_ids is None
    assert [c.num_cells for c in chunks[:-1]] == [min(size, NUM_CELLS)] * (len(chunks) - 1)
    assert [name for c in chunks for name in c.cells] == list(cells.obs_names)
    assert chunks[0].indptr.dtype == np.int64
    assert chunks[0].indices.dtype == np.int32
    assert chunks[0].data.dtype == np.float32
    np.testing.assert_array_equal(joined(chunks), dense(cells).astype(np.float32))


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_reads_real_cells(tmp_path: Path, real_cells: AnnData, kind: str) -> None:
    cells = real_cells.copy()
    if kind != "csr":
        cells.X = cells.X.tocsc() if kind == "csc" else cells.X.toarray()
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path, compression="lzf")
    with H5adFile(path) as file:
        chunks = list(file.chunks(32))
        assert file.columns.names == list(cells.var_names)
    np.testing.assert_array_equal(joined(chunks), real_cells.X.toarray())


def test_a_column_wise_matrix_is_read_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = small_counts("csc")
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    for bound in (1, 60, 150, 10**6):
        monkeypatch.setattr(stored_matrix, "_CSC_ENTRIES", bound)
        monkeypatch.setattr(stored_matrix, "_CSC_BLOCK", 17)
        with H5adFile(path) as file:
            chunks = list(file.chunks(4))
        assert [c.num_cells for c in chunks] == [4, 4, 4, 4, 4, 3]
        np.testing.assert_array_equal(joined(chunks), dense(cells))


def test_a_dense_matrix_is_read_in_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = small_counts("dense")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(stored_matrix, "_DENSE_BYTES", 3 * NUM_GENES * 4)
    with H5adFile(tmp_path / "cells.h5ad") as file:
        np.testing.assert_array_equal(joined(list(file.chunks(10))), dense(cells))


def test_nan_and_negative_values_are_kept_for_validation(tmp_path: Path) -> None:
    for kind in ("csr", "csc", "dense"):
        cells = small_counts("dense")
        cells.X[5, 7] = np.nan
        if kind != "dense":
            cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](cells.X)
        cells.write_h5ad(tmp_path / "cells.h5ad")
        with H5adFile(tmp_path / "cells.h5ad") as file, pytest.raises(InputError) as caught:
            next(file.chunks(100)).validate()
        assert (caught.value.code, caught.value.cell, caught.value.gene) == ("not-finite", "cell-5", "GENE7")


def test_symbols_as_names_and_ids_in_a_column(tmp_path: Path) -> None:
    cells = small_counts()
    ids = [f"ENSG{i:011d}.2" for i in range(NUM_GENES)]
    ids[4] = ""
    cells.var["gene_ids"] = ids
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.columns.names == list(cells.var_names)
        assert file.columns.ensembl_ids == ids
        assert next(file.chunks(5)).ensembl_ids == ids


@pytest.mark.parametrize("column", ["feature_name", "symbol", "gene_symbols"])
def test_ids_as_names_and_symbols_in_a_categorical_column(tmp_path: Path, column: str) -> None:
    cells = small_counts()
    symbols = [f"GENE{i // 2}" for i in range(NUM_GENES)]
    cells.var[column] = pd.Categorical([*symbols[:-1], None])
    cells.var_names = [f"ENSG{i:011d}" for i in range(NUM_GENES)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.columns.names == [*symbols[:-1], cells.var_names[-1]]
        assert file.columns.ensembl_ids == list(cells.var_names)


def test_symbols_replace_numeric_names(tmp_path: Path) -> None:
    cells = small_counts()
    cells.var["feature_name"] = list(cells.var_names)
    cells.var["feature_id"] = [f"ENSG{i:011d}" for i in range(NUM_GENES)]
    cells.var_names = [str(i) for i in range(NUM_GENES)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.columns.names[:2] == ["GENE0", "GENE1"]
        assert file.columns.ensembl_ids == list(cells.var["feature_id"])


def test_other_ids_are_not_mistaken_for_ensembl_ids(tmp_path: Path) -> None:
    cells = small_counts()
    cells.var["gene_ids"] = [str(7000 + i) for i in range(NUM_GENES)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.columns.ensembl_ids is None


def test_obs_columns_in_every_encoding(tmp_path: Path) -> None:
    cells = small_counts()
    n = NUM_CELLS
    cells.obs["text"] = [f"t{i}" for i in range(n)]
    cells.obs["category"] = pd.Categorical(["a", None, *["b"] * (n - 2)])
    cells.obs["category_of_numbers"] = pd.Categorical([10, None, *[20] * (n - 2)])
    cells.obs["category_of_booleans"] = pd.Categorical([True, None, *[False] * (n - 2)])
    cells.obs["number"] = np.arange(n) * 0.5
    cells.obs["flag"] = [i % 2 == 0 for i in range(n)]
    cells.obs["nullable_number"] = pd.array([None, *range(1, n)], dtype="Int64")
    cells.obs["nullable_flag"] = pd.array([None, *[True] * (n - 1)], dtype="boolean")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as raw, anndata.settings.override(allow_write_nullable_strings=True):
        # write_h5ad would convert it to a categorical.
        anndata.io.write_elem(raw["obs"], "nullable_text", pd.array([None, *["x"] * (n - 1)], dtype="string"))
        assert raw["obs/nullable_text"].attrs["encoding-type"] == "nullable-string-array"
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert obs(file, "text").tolist() == list(cells.obs["text"])
        assert obs(file, "category").tolist() == ["a", "", *["b"] * (n - 2)]
        np.testing.assert_array_equal(obs(file, "category_of_numbers"), [10, np.nan, *[20] * (n - 2)])
        assert obs(file, "category_of_booleans").tolist() == [True, False, *[False] * (n - 2)]
        np.testing.assert_array_equal(obs(file, "number"), cells.obs["number"])
        assert obs(file, "flag").dtype == bool
        assert obs(file, "flag").tolist() == list(cells.obs["flag"])
        np.testing.assert_array_equal(obs(file, "nullable_number"), [np.nan, *range(1, n)])
        assert obs(file, "nullable_flag").tolist() == [False, *[True] * (n - 1)]
        assert obs(file, "nullable_text").tolist() == ["", *["x"] * (n - 1)]
        assert file.obs_column("absent") is None


def test_nullable_strings_as_categories_and_as_index(tmp_path: Path) -> None:
    cells = small_counts()
    cells.obs["category"] = pd.Categorical(pd.array(["a", *["b"] * (NUM_CELLS - 1)], dtype="string"))
    cells.obs.index = pd.Index(pd.array(list(cells.obs_names), dtype="string"))
    with anndata.settings.override(allow_write_nullable_strings=True):
        cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.cells == [f"cell-{i}" for i in range(NUM_CELLS)]
        assert obs(file, "category").tolist() == ["a", *["b"] * (NUM_CELLS - 1)]


def test_the_encodings_of_old_files(tmp_path: Path) -> None:
    """anndata 0.7 kept categories in a separate group; some writers use fixed-length names and no encoding-type."""
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs["h5sparse_format"], x.attrs["h5sparse_shape"] = "csr", (2, 3)
        x["data"], x["indices"], x["indptr"] = [1.0, 2.0, 3.0], [0, 2, 1], [0, 2, 3]
        rows, var = file.create_group("obs"), file.create_group("var")
        rows.attrs["_index"] = "barcode"
        rows["barcode"] = np.array([b"AA", b"CC"])
        rows["type"] = np.array([1, 0], dtype=np.int8)
        rows["__categories/type"] = np.array(["B", "T"], dtype=h5py.string_dtype())
        rows["type"].attrs["categories"] = rows["__categories/type"].ref
        var["index"] = np.array(["G1", "G2", "G3"], dtype=h5py.string_dtype())
    with H5adFile(path) as file:
        assert file.cells == ["AA", "CC"]
        assert file.columns.names == ["G1", "G2", "G3"]
        assert obs(file, "type").tolist() == ["T", "B"]
        np.testing.assert_array_equal(joined(list(file.chunks(9))), [[1, 0, 2], [0, 3, 0]])


def test_layers_and_raw(tmp_path: Path) -> None:
    cells = small_counts()
    cells.raw = cells.copy()
    cells = cells[:, 5:15].copy()
    cells.layers["twice"] = cells.X * 2
    cells.write_h5ad(tmp_path / "cells.h5ad")
    for opened, asked in (("twice", None), (None, "twice")):
        with H5adFile(tmp_path / "cells.h5ad", layer=opened) as file:
            np.testing.assert_array_equal(joined(list(file.chunks(8, asked))), dense(cells, "twice"))
    with H5adFile(tmp_path / "cells.h5ad", layer="raw") as file:
        assert len(file.columns.names) == NUM_GENES
        np.testing.assert_array_equal(joined(list(file.chunks(8))), cells.raw.X.toarray())
    with H5adFile(tmp_path / "cells.h5ad", layer="X") as file:
        assert len(file.columns.names) == 10
        assert next(file.chunks(8, "raw")).num_genes == NUM_GENES
    for missing in ("spliced", "../obs", "X/data", "\0"):
        with pytest.raises(InputError) as caught:
            H5adFile(tmp_path / "cells.h5ad", layer=missing)
        assert caught.value.code == "no-such-layer"
        assert "raw, twice" in caught.value.hint


def test_totals_come_from_the_named_column_only(tmp_path: Path) -> None:
    cells = small_counts()
    cells.obs["total_UMIs"] = np.arange(NUM_CELLS) + 100
    cells.obs["bad"] = np.arange(NUM_CELLS)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert next(file.chunks(5)).totals is None
    with H5adFile(tmp_path / "cells.h5ad", totals_column="total_UMIs") as file:
        totals = [c.totals for c in file.chunks(5) if c.totals is not None]
    np.testing.assert_array_equal(np.concatenate(totals), np.arange(NUM_CELLS) + 100)
    for column, code in (("absent", "no-totals"), ("bad", "bad-total")):
        with H5adFile(tmp_path / "cells.h5ad", totals_column=column) as file, pytest.raises(InputError) as caught:
            next(file.chunks(5))
        assert caught.value.code == code


def test_duplicate_and_odd_names_are_kept(tmp_path: Path) -> None:
    cells = small_counts()
    cells.obs_names = ["same"] * (NUM_CELLS - 2) + ["/etc/passwd", "ünïcode 細胞"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.cells == list(cells.obs_names)
