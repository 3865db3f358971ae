"""The ending of -o is the format that is written; any other ending is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.app.offline.files import process_file
from scpalm.app.offline.tables import ENDINGS, check_ending
from scpalm.model.bundle import Bundle
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError
from scpalm.model.progress import NoProgress
from scpalm.model.spec import RequestSpec
from tests.app.fakes import FakeSession
from tests.app.offline.test_files import NUM_CELLS, make_cells
from tests.model.io.other_formats.other_files import write_10x_folder


@pytest.fixture
def engine(bundle_dir: Path, session: FakeSession) -> Engine:
    return Engine(Bundle.load(bundle_dir), session)


def read(path: Path) -> tuple[list[str] | None, list[str] | None, np.ndarray]:
    """Names of cells and columns, and values."""
    if path.suffix == ".npy":
        return None, None, np.load(path)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path).set_index("cell")
    else:
        table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", index_col="cell")
    return list(table.index), list(table.columns), table.to_numpy()


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".npy", ".CSV"])
def test_a_table_has_the_values_of_the_copy(tmp_path: Path, engine: Engine, ending: str) -> None:
    import anndata

    cells = make_cells()
    cells.write_h5ad(tmp_path / "in.h5ad")
    for target in (tmp_path / "out.h5ad", tmp_path / f"out{ending}"):
        process_file(tmp_path / "in.h5ad", target, engine, RequestSpec(("embed",)), NoProgress())
    if ending == ".CSV":
        (tmp_path / "out.CSV").rename(tmp_path / "out.csv")
        ending = ".csv"
    names, columns, values = read(tmp_path / f"out{ending}")
    wanted = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"]
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
    assert names in (None, list(cells.obs_names)) and columns in (None, ["embed_0", "embed_1", "embed_2"])
    assert len(values) == NUM_CELLS


@pytest.mark.parametrize("name", ["out.zarr", "out.txt", "out", "out.h5", "out.h5ad.gz"])
def test_any_other_ending_is_refused_before_reading(tmp_path: Path, engine: Engine, name: str) -> None:
    with pytest.raises(InputError, match="does not end in"):
        process_file(tmp_path / "missing.h5ad", tmp_path / name, engine, RequestSpec(("embed",)), NoProgress())
    assert not (tmp_path / name).exists()


def test_every_ending_is_known() -> None:
    for ending in ENDINGS:
        check_ending(Path(f"x{ending}"))


def test_a_10x_folder_is_read(tmp_path: Path, engine: Engine) -> None:
    source = write_10x_folder(tmp_path / "run")
    with pytest.raises(InputError, match=r"gene"):  # the fake model knows none of its genes
        process_file(source, tmp_path / "out.csv", engine, RequestSpec(("embed",)), NoProgress())
    assert not (tmp_path / "out.csv").exists()
