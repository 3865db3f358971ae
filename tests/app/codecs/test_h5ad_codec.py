from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from anndata import AnnData

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.h5ad import H5adCodec
from scpalm.model.errors import InputError, OverLimitError
from tests.app.codecs.results import result_for
from tests.model.small_cells import NUM_CELLS, dense, joined, small_counts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    small_counts().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def test_reads_cells(path: Path) -> None:
    (matrix,) = H5adCodec().decode(path, DecodeOptions())
    np.testing.assert_array_equal(joined([matrix]), dense(small_counts()))


def test_many_cells_are_read_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scpalm.app.codecs.h5ad.CHUNK_CELLS", 9)
    parts = list(H5adCodec().decode(path, DecodeOptions()))
    assert [part.num_cells for part in parts] == [9, 9, 5]
    np.testing.assert_array_equal(joined(parts), dense(small_counts()))


def test_limits_and_layer_are_passed_on(path: Path) -> None:
    with pytest.raises(OverLimitError) as caught:
        next(H5adCodec().decode(path, DecodeOptions(max_cells=3)))
    assert caught.value.code == "too-many-cells"
    with pytest.raises(OverLimitError) as caught:
        next(H5adCodec().decode(path, DecodeOptions(max_bytes=100)))
    assert caught.value.code == "declared-size"
    with pytest.raises(InputError) as fault:
        next(H5adCodec().decode(path, DecodeOptions(layer="counts")))
    assert fault.value.code == "no-such-layer"


def test_the_response_is_the_uploaded_file_with_one_key_added(path: Path, tmp_path: Path) -> None:
    cells = anndata.read_h5ad(path)
    cells.obs["type"] = ["B"] * NUM_CELLS
    cells.obsm["X_pca"] = np.ones((NUM_CELLS, 2))
    cells.uns["note"] = "mine"
    cells.write_h5ad(path)
    before = path.read_bytes()
    result = result_for(list(cells.obs_names))
    assert H5adCodec().encode(result, tmp_path / "out.h5ad", path) is None
    assert path.read_bytes() == before
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(out.obsm["X_scpalm"], result.outputs[0].load())
    assert out.obsm["X_scpalm"].dtype == np.float32
    assert set(out.obsm) == {"X_pca", "X_scpalm"}
    assert out.uns["note"] == "mine"
    note = out.uns["scpalm"]
    assert note["model"] == {"name": "mini", "version": "1.0"}
    assert note["coverage"]["genes_matched"] == 38
    assert note["input"]["detected"] == "counts"
    np.testing.assert_array_equal(dense(out), dense(cells))
    assert out.obs.equals(anndata.read_h5ad(path).obs)


def test_an_older_result_is_replaced(path: Path, tmp_path: Path) -> None:
    names = [f"cell-{i}" for i in range(NUM_CELLS)]
    H5adCodec().encode(result_for(names, 9), tmp_path / "first.h5ad", path)
    result = result_for(names, 5)
    H5adCodec().encode(result, tmp_path / "second.h5ad", tmp_path / "first.h5ad")
    out = anndata.read_h5ad(tmp_path / "second.h5ad")
    np.testing.assert_array_equal(out.obsm["X_scpalm"], result.outputs[0].load())


def test_a_file_without_obsm_and_uns_gets_them(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name in ("obsm", "uns"):
            if name in file:
                del file[name]
    H5adCodec().encode(result_for([f"cell-{i}" for i in range(NUM_CELLS)]), tmp_path / "out.h5ad", path)
    assert list(anndata.read_h5ad(tmp_path / "out.h5ad").obsm) == ["X_scpalm"]


def test_real_cells(real_cells: AnnData, tmp_path: Path) -> None:
    real_cells.write_h5ad(tmp_path / "in.h5ad", compression="gzip")
    result = result_for(list(real_cells.obs_names), 128)
    H5adCodec().encode(result, tmp_path / "out.h5ad", tmp_path / "in.h5ad")
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(out.obsm["X_scpalm"], result.outputs[0].load())
    np.testing.assert_array_equal(out.X.toarray(), real_cells.X.toarray())
    assert list(out.obs_names) == list(real_cells.obs_names)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_without_a_file_a_new_one_is_written(tmp_path: Path) -> None:
    result = result_for(["a", "b", "b"])
    assert H5adCodec().encode(result, tmp_path / "out.h5ad") is None
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(out.obs_names) == ["a", "b", "b"]
    assert out.shape == (3, 0)
    np.testing.assert_array_equal(out.obsm["X_scpalm"], result.outputs[0].load())
    assert out.uns["scpalm"]["key"] == "X_scpalm"


@pytest.mark.parametrize("name", ["obsm", "uns"])
def test_links_are_not_followed_when_writing(path: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "precious.h5"
    with h5py.File(other, "w") as file:
        file.create_group("there")
    before = other.read_bytes()
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink(str(other), "there")
    with pytest.raises(InputError) as caught:
        H5adCodec().encode(result_for([f"cell-{i}" for i in range(NUM_CELLS)]), tmp_path / "out.h5ad", path)
    assert caught.value.code == "external-link"
    assert other.read_bytes() == before


def test_obsm_stored_as_a_table_is_refused(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obsm"]
        file["obsm"] = np.zeros(NUM_CELLS, dtype=[("X_pca", "f4")])
    with pytest.raises(InputError) as caught:
        H5adCodec().encode(result_for([f"cell-{i}" for i in range(NUM_CELLS)]), tmp_path / "out.h5ad", path)
    assert caught.value.code == "legacy-h5ad"
