"""The engine: AnnData in memory, files and streams give the same numbers, written where scanpy users expect them."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scpalm
from scpalm.model.drug_response.session import drug_response_of
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError, ParameterError
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import CellReader


@pytest.fixture(scope="module")
def engine() -> Engine:
    return scpalm.load(device="cpu", threads=1)


@pytest.fixture
def cells(real_cells: AnnData) -> AnnData:
    return real_cells[:30].copy()


def embedding(engine: Engine, source: Path | AnnData, spec: RequestSpec = RequestSpec(("embed",))) -> np.ndarray:  # noqa: B008
    with engine.stream(source, spec) as stream:
        return np.concatenate([block.values["embed"] for block in stream])


def test_every_output_is_written_where_its_docstring_says(engine: Engine, cells: AnnData) -> None:
    info = engine.session.info
    assert engine.embed(cells) is None
    engine.impute(cells)
    engine.impute(cells, ["CD3D", "LYZ"])
    engine.pathways(cells)
    engine.pathways(cells, summary=True)
    engine.ic50(cells, ["Cisplatin"])
    kernel = drug_response_of(engine.bundle).kernel
    relative = {"relative": np.float32, "percentile": np.float32, "rank": np.int32} if kernel else {}
    shapes = {key: (value.shape[1], value.dtype) for key, value in cells.obsm.items()}
    assert shapes == {
        **{f"X_scpalm_ic50_{name}": (1, dtype) for name, dtype in relative.items()},
        "X_scpalm": (info.embedding_width, np.float32),
        "X_scpalm_imputed": (2, np.float32),
        "X_scpalm_pathways": (info.num_tokens, np.int32),
        "X_scpalm_pathway_shares": (info.num_codes, np.float32),
        "X_scpalm_ic50": (1, np.float32),
        "X_scpalm_ic50_lower": (1, np.float32),
        "X_scpalm_ic50_upper": (1, np.float32),
        "X_scpalm_ic50_cell_distance": (1, np.float32),
    }
    assert cells.obs["scpalm_ic50_domain"].notna().all()
    known = ~np.isnan(cells.layers["scpalm_imputed"]).all(axis=0)
    assert 0.3 < known.mean() < 1 and (cells.layers["scpalm_imputed"][:, known] >= 0).all()
    np.testing.assert_allclose(cells.obsm["X_scpalm_pathway_shares"].sum(axis=1), 1, rtol=1e-5)
    note = cells.uns["scpalm"]
    assert note["model"]["name"] == engine.bundle.name and note["key"] == "X_scpalm_ic50"


def test_a_copy_leaves_the_original_alone_and_a_key_can_be_chosen(engine: Engine, cells: AnnData) -> None:
    copied = engine.embed(cells, copy=True, key_added="X_mine")
    assert not cells.obsm and "scpalm" not in cells.uns
    assert copied is not None and list(copied.obsm) == ["X_mine"]
    assert copied.uns["scpalm"]["key"] == "X_mine"


def test_memory_files_and_stores_give_the_same_bits(engine: Engine, cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    expected = embedding(engine, cells)
    for source in (tmp_path / "cells.h5ad", tmp_path / "cells.zarr", anndata.read_h5ad(tmp_path / "cells.h5ad")):
        np.testing.assert_array_equal(embedding(engine, source), expected)
    dense = AnnData(cells.X.toarray(), obs=cells.obs, var=cells.var)
    by_columns = AnnData(sparse.csc_matrix(cells.X), obs=cells.obs, var=cells.var)
    np.testing.assert_array_equal(embedding(engine, dense), expected)
    np.testing.assert_array_equal(embedding(engine, by_columns), expected)


def test_layers_and_raw_are_read(engine: Engine, cells: AnnData) -> None:
    expected = embedding(engine, cells)
    normalised = cells.copy()
    normalised.layers["counts"] = cells.X.copy()
    normalised.raw = cells
    normalised.X = sparse.csr_matrix(np.log1p(cells.X.toarray()))
    for layer in ("counts", "raw"):
        np.testing.assert_array_equal(embedding(engine, normalised, RequestSpec(("embed",), layer=layer)), expected)
    with pytest.raises(InputError, match="counts"):
        engine.embed(normalised, layer="Counts")


def test_a_stream_gives_any_range_of_cells(engine: Engine, real_cells: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "many.h5ad"
    many = anndata.concat([real_cells] * 6, index_unique="-")
    many.write_h5ad(path)
    spec = RequestSpec(("embed",))
    with engine.stream(path, spec) as stream:
        blocks = list(stream)
        assert [block.start for block in blocks] == [0, 512]
        assert [name for block in blocks for name in block.cells] == list(many.obs_names)
    whole = np.concatenate([block.values["embed"] for block in blocks])
    with engine.read(path) as reader:
        report = next(iter(reader)).input
    with engine.stream(path, spec, report=report) as stream:
        (block,) = stream.rows(90, 130)
        assert block.start == 90
        np.testing.assert_array_equal(block.values["embed"], whole[90:130])


def test_a_failed_run_changes_nothing_and_names_the_fault(engine: Engine, cells: AnnData) -> None:
    before = cells.copy()
    with pytest.raises(ParameterError, match="NOSUCHGENE"):
        engine.impute(cells, ["CD3D", "NOSUCHGENE"])
    cells.X[3, 5] = np.nan
    with pytest.raises(InputError) as caught:
        engine.embed(cells)
    assert cells.obs_names[3] in str(caught.value)
    assert not cells.obsm and list(cells.uns) == list(before.uns)


def test_labels_come_from_the_nearest_cells(engine: Engine, cells: AnnData) -> None:
    reference = cells.copy()
    reference.obs["cell_type"] = pd.Categorical([f"group {i % 2}" for i in range(len(reference))])
    engine.annotate(cells, reference, key_added="found")
    names = ("label", "second_label", "nearest_label", "cell_type", "probability", "distance", "unknown")
    assert list(cells.obs)[-7:] == [f"found_{name}" for name in names]
    np.testing.assert_allclose(cells.obs["found_distance"], 0, atol=1e-2)
    with pytest.raises(InputError, match="no column 'type'"):
        engine.annotate(cells, reference, label="type")


def test_an_opened_reader_is_closed_after_an_error(engine: Engine, cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ParameterError), engine.stream(tmp_path / "cells.h5ad", RequestSpec(("embed", "nothing"))):
        pass
    (tmp_path / "cells.h5ad").rename(tmp_path / "moved.h5ad")
    with engine.read(tmp_path / "moved.h5ad") as reader:
        assert isinstance(reader, CellReader) and reader.num_cells == 30
