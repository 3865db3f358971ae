from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scpalm.app.offline.annotate import Counts, LabelSource, annotate_file
from scpalm.model.engine import Engine, load
from scpalm.model.errors import InputError, MissingPartError
from scpalm.model.io.labels import LabelledBy
from scpalm.model.progress import NoProgress
from scpalm.model.spec import RequestSpec

COLUMNS = ["label", "second_label", "nearest_label", "cell_type", "probability", "distance", "unknown"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(device="cpu", threads=1)


def annotate(
    engine: Engine, files: tuple[Path, Path], target: Path, how: LabelledBy | None = None, vote: str = ""
) -> Counts:
    query, reference = files
    spec = RequestSpec(("annotate",), {"vote": vote} if vote else {})
    return annotate_file(query, LabelSource(reference, how or LabelledBy()), target, engine, spec, NoProgress())


@pytest.fixture
def files(tmp_path: Path, real_cells: AnnData) -> tuple[Path, Path]:
    cells = real_cells[:60].copy()
    cells.obs["cell_type"] = pd.Categorical([f"group {i % 2}" for i in range(60)])
    cells[:40].write_h5ad(tmp_path / "reference.h5ad")
    query = cells[30:].copy()
    del query.obs["cell_type"]
    query.obs["donor"] = ["d1"] * 15 + ["d2"] * 15
    query.write_h5ad(tmp_path / "query.h5ad")
    return tmp_path / "query.h5ad", tmp_path / "reference.h5ad"


def test_the_output_has_the_new_and_the_existing_columns(
    files: tuple[Path, Path], engine: Engine, tmp_path: Path
) -> None:
    found = annotate(engine, files, tmp_path / "out.h5ad")
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(out.obs)[-7:] == [f"scpalm_{name}" for name in COLUMNS]
    assert set(out.obs["donor"]) == {"d1", "d2"}
    assert set(out.obs["scpalm_nearest_label"]) <= {"group 0", "group 1"}
    # The first ten are reference cells themselves.
    np.testing.assert_allclose(out.obs["scpalm_distance"][:10], 0, atol=1e-2)
    assert found == Counts(30, int((out.obs["scpalm_label"] == "unknown").sum()))
    assert (out.obs["scpalm_unknown"] == (out.obs["scpalm_label"] == "unknown")).all()
    adata = anndata.read_h5ad(files[0])
    engine.annotate(adata, files[1])
    pd.testing.assert_frame_equal(adata.obs, out.obs, check_categorical=False)


def test_labels_are_written_as_a_table(files: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    annotate(engine, files, tmp_path / "out.csv", vote="donor")
    table = pd.read_csv(tmp_path / "out.csv", index_col="cell")
    assert list(table) == [*COLUMNS, "voted_label", "vote_share"] and len(table) == 30
    for half in (table[:15], table[15:]):
        assert set(half["voted_label"]) == {half["label"].mode().min()}
        assert half["vote_share"].iloc[0] == pytest.approx(half["label"].value_counts(normalize=True).max())
    annotate(engine, files, tmp_path / "out.parquet")
    assert list(pd.read_parquet(tmp_path / "out.parquet")) == ["cell", *COLUMNS]


def test_the_counts_of_the_reference_may_be_anywhere(files: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    annotate(engine, files, tmp_path / "plain.csv")
    reference = anndata.read_h5ad(files[1])
    reference.layers["raw_counts"] = reference.X
    reference.X = np.zeros(reference.shape, np.float32)
    reference.write_h5ad(tmp_path / "other.h5ad")
    how = LabelledBy(layer="raw_counts")
    annotate(engine, (files[0], tmp_path / "other.h5ad"), tmp_path / "layer.csv", how)
    assert (tmp_path / "layer.csv").read_text() == (tmp_path / "plain.csv").read_text()


def test_a_reference_without_the_label_is_an_error_and_leaves_no_file(
    files: tuple[Path, Path], engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"'reference.h5ad': obs has no column 'celltype'"):
        annotate(engine, files, tmp_path / "out.h5ad", LabelledBy("celltype"))
    with pytest.raises(InputError, match="the input file"):
        annotate(engine, files, files[0])
    with pytest.raises(InputError, match="no column 'leiden'"):
        annotate(engine, files, tmp_path / "out.h5ad", vote="leiden")
    assert not (tmp_path / "out.h5ad").exists()


def test_a_model_without_a_reference_says_so(files: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    if "reference.json" in engine.bundle.manifest["files"]:
        pytest.skip("the packaged model has a reference")
    with pytest.raises(MissingPartError, match="has no reference of cell types"):
        annotate_file(files[0], None, tmp_path / "out.csv", engine, RequestSpec(("annotate",)), NoProgress())
