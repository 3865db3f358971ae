from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scpalm.app.offline.annotate import annotate_file
from scpalm.app.serving.runtime import open_runtime
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.sessions.session import Session


@pytest.fixture(scope="module")
def session() -> Session:
    pytest.importorskip("onnxruntime")
    return open_runtime(Bundle.load(), device="cpu", threads=1)


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


def test_the_file_gains_columns_and_keeps_its_own(files: tuple[Path, Path], session: Session, tmp_path: Path) -> None:
    query, reference = files
    found = annotate_file(query, reference, "cell_type", tmp_path / "out.h5ad", Bundle.load(), session)
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(out.obs)[-4:] == ["scpalm_label", "scpalm_nearest_label", "scpalm_probability", "scpalm_distance"]
    assert (out.obs["donor"] == "d1").all()
    assert set(out.obs["scpalm_nearest_label"]) <= {"group 0", "group 1"}
    # The first ten are reference cells themselves.
    np.testing.assert_allclose(out.obs["scpalm_distance"][:10], 0, atol=1e-2)
    np.testing.assert_array_equal(out.obs["scpalm_label"].astype(str), found.label.astype(str))


def test_a_table(files: tuple[Path, Path], session: Session, tmp_path: Path) -> None:
    query, reference = files
    annotate_file(query, reference, "cell_type", tmp_path / "out.csv", Bundle.load(), session)
    table = pd.read_csv(tmp_path / "out.csv", index_col="cell")
    assert list(table) == ["label", "nearest_label", "probability", "distance"] and len(table) == 30


def test_a_reference_without_the_label_is_an_error_and_leaves_no_file(
    files: tuple[Path, Path], session: Session, tmp_path: Path
) -> None:
    query, reference = files
    with pytest.raises(InputError, match="no column 'celltype'"):
        annotate_file(query, reference, "celltype", tmp_path / "out.h5ad", Bundle.load(), session)
    with pytest.raises(InputError, match="an input itself"):
        annotate_file(query, reference, "cell_type", query, Bundle.load(), session)
    assert not (tmp_path / "out.h5ad").exists()
