from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scpalm.app.offline.annotate import LabelSource, annotate_file
from scpalm.model.annotate import Annotation
from scpalm.model.engine import Engine, load
from scpalm.model.errors import InputError
from scpalm.model.progress import NoProgress
from scpalm.model.spec import RequestSpec


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(device="cpu", threads=1)


def annotate(engine: Engine, files: tuple[Path, Path], target: Path, label: str = "cell_type") -> Annotation:
    query, reference = files
    return annotate_file(query, LabelSource(reference, label), target, engine, RequestSpec(()), NoProgress())


@pytest.fixture
def files(tmp_path: Path, real_cells: AnnData) -> tuple[Path, Path]:
    cells = real_cells[:60].copy()
    cells.obs["cell_type"] = pd.Categorical([f"group {i % 2}" for i in range(60)])
    cells[:40].write_h5ad(tmp_path / "reference.h5ad")
    query = cells[30:].copy()
    del query.obs["cell_type"]
    query.obs["donor"] = "d1"
    query.write_h5ad(tmp_path / "query.h5ad")
    return tmp_path / "query.h5ad", tmp_path / "reference.h5ad"


def test_the_output_has_the_new_and_the_existing_columns(
    files: tuple[Path, Path], engine: Engine, tmp_path: Path
) -> None:
    found = annotate(engine, files, tmp_path / "out.h5ad")
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(out.obs)[-4:] == ["scpalm_label", "scpalm_nearest_label", "scpalm_probability", "scpalm_distance"]
    assert (out.obs["donor"] == "d1").all()
    assert set(out.obs["scpalm_nearest_label"]) <= {"group 0", "group 1"}
    # The first ten are reference cells themselves.
    np.testing.assert_allclose(out.obs["scpalm_distance"][:10], 0, atol=1e-2)
    np.testing.assert_array_equal(out.obs["scpalm_label"].astype(str), found.label.astype(str))


def test_labels_are_written_as_a_table(files: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    annotate(engine, files, tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv", index_col="cell")
    assert list(table) == ["label", "nearest_label", "probability", "distance"] and len(table) == 30


def test_a_reference_without_the_label_is_an_error_and_leaves_no_file(
    files: tuple[Path, Path], engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no column 'celltype'"):
        annotate(engine, files, tmp_path / "out.h5ad", "celltype")
    with pytest.raises(InputError, match="the input file"):
        annotate(engine, files, files[0])
    assert not (tmp_path / "out.h5ad").exists()
