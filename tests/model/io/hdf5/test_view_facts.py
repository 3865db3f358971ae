"""What a file has for a picture of its cells."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from scpalm.model.io.hdf5.h5ad import H5adFile


@pytest.mark.parametrize("index_name", [None, "barcode"])
@pytest.mark.parametrize("columns", [[], ["batch"]])
def test_the_names_of_the_cells_are_no_column(tmp_path: Path, index_name: str | None, columns: list[str]) -> None:
    cells = anndata.AnnData(np.ones((3, 2), np.float32))
    cells.obs.index.name = index_name
    for column in columns:
        cells.obs[column] = ["a", "b", "a"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with H5adFile(tmp_path / "cells.h5ad") as file:
        assert file.view_facts().columns == columns
