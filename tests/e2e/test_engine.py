"""The engine in this process gives bit-identical results to the server."""

from __future__ import annotations

import io
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest

import scpalm
from tests.e2e.conftest import BUNDLE, Server

H5AD = {"Content-Type": "application/x-hdf5"}


@pytest.mark.parametrize("task", ["embed", "impute", "pathways", "ic50"])
def test_server_and_engine_write_the_same_values(server: Server, cells: Path, task: str) -> None:
    answer = httpx.post(f"{server.url}/{task}", content=cells.read_bytes(), headers=H5AD, timeout=120)
    assert answer.status_code == 200, answer.text
    served = anndata.read_h5ad(io.BytesIO(answer.content))
    adata = anndata.read_h5ad(cells)
    getattr(scpalm.load(BUNDLE), task)(adata)
    assert set(served.obsm) | set(served.layers) == set(adata.obsm) | set(adata.layers) != set()
    for own, other in ((served.obsm, adata.obsm), (served.layers, adata.layers)):
        for key in own:
            np.testing.assert_array_equal(own[key], other[key], err_msg=key)
