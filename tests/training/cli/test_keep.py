from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.training.cli.keep import check_keep
from scpalm.training.runs.config import ConfigError
from tests.model.io.other_formats.other_files import adata


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    one, other = adata(), adata()
    one.obs["cell_type"], one.obs["batch"] = ["B", "NK"], [1, 2]
    other.obs["donor"] = ["d1", "d2"]
    one.write_h5ad(tmp_path / "one.h5ad")
    other.write_zarr(tmp_path / "other.zarr")
    return [tmp_path / "one.h5ad", tmp_path / "other.zarr"]


def test_columns_of_some_of_the_files_are_kept(files: list[Path]) -> None:
    assert check_keep(files, ["cell_type=B", "donor=d2", "batch=1"]) == {"cell_type": "B", "donor": "d2", "batch": "1"}
    assert check_keep(files, None) == {}


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("cell_typ=B", "Did you mean 'cell_type'"),
        ("cell_type=NKT", "Did you mean 'NK'"),
        ("batch=7", "There is: 1, 2"),
        ("cell_type", "column=value"),
        ("=B", "column=value"),
    ],
)
def test_what_no_file_has_is_an_error(files: list[Path], keep: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_keep(files, [keep])
