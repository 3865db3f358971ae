"""POST /integrate, the command and the engine give the same numbers; what cannot be integrated is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from scpalm.app.cli.main import cli
from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.errors import InputError
from scpalm.model.output.plain import plain_mapping
from tests.app.fakes import Client
from tests.app.http.routes.test_cells import check_problem
from tests.model.output.same_plain import assert_same_plain
from tests.training.bundles import exported
from tests.training.small_reference import tiny_matrix

pytest.importorskip("harmonypy")
H5AD = {"Content-Type": "application/x-hdf5"}
NUM_CELLS = 60


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(exported(tmp_path_factory).bundle)


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("spool")
    settings = Settings(
        bundle=tiny_bundle.path, batch_cells=8, parser_processes=1, spool_dir=folder, results_dir=folder / "jobs"
    )
    with Client(create_app(settings)) as loaded:
        yield loaded.wait_until_loaded()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    matrix = tiny_matrix(NUM_CELLS, seed=5)
    counts = sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(NUM_CELLS, len(matrix.genes)))
    obs = pd.DataFrame(
        {
            "donor": ["one", "two"] * (NUM_CELLS // 2),
            "same": ["x"] * NUM_CELLS,
            "kind": ["k", "k", "l"] * (NUM_CELLS // 3),
        },
        index=[f"cell{row}" for row in range(NUM_CELLS)],
    )
    path = tmp_path_factory.mktemp("integrate") / "cells.h5ad"
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=matrix.genes)).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def expected(tiny_bundle: Bundle, path: Path) -> anndata.AnnData:
    adata = anndata.read_h5ad(path)
    load(tiny_bundle, "cpu").integrate(adata, "donor")
    return adata


def test_request_job_command_and_engine_agree(
    client: Client, tiny_bundle: Bundle, path: Path, expected: anndata.AnnData, tmp_path: Path
) -> None:
    wanted = expected.obsm["X_scpalm_integrated"]
    note = expected.uns["scpalm"]["integration"]
    assert note["batch_key"] == "donor" and note["batches"]["name"].tolist() == ["one", "two"]
    answer = client.post("/integrate?batch_key=donor", content=path.read_bytes(), headers=H5AD)
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.h5ad").write_bytes(answer.content)
    direct = anndata.read_h5ad(tmp_path / "answer.h5ad")
    np.testing.assert_array_equal(direct.obsm["X_scpalm_integrated"], wanted)
    assert set(direct.obsm) == {"X_scpalm_integrated"}
    assert_same_plain(direct.uns["scpalm"]["integration"], note)
    as_json = client.post(
        "/integrate?batch_key=donor", content=path.read_bytes(), headers=H5AD | {"Accept": "application/json"}
    )
    np.testing.assert_array_equal(np.float32(as_json.json()["values"]), wanted)
    assert_same_plain(plain_mapping(as_json.json()["integration"]), note)
    job = client.post(
        "/integrate?batch_key=donor",
        content=path.read_bytes(),
        headers=H5AD | {"Prefer": "respond-async", "Accept": "application/json"},
    )
    where = job.headers["location"]
    while client.get(where).json()["state"] in ("queued", "running"):
        time.sleep(0.02)
    result = client.get(f"{where}/result").json()
    np.testing.assert_array_equal(np.float32(result["values"]), wanted)
    assert_same_plain(plain_mapping(result["integration"]), note)
    out = tmp_path / "out.h5ad"
    done = CliRunner().invoke(
        cli, ["integrate", str(path), "--batch-key", "donor", "-o", str(out), "--bundle", str(tiny_bundle.path)]
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(anndata.read_h5ad(out).obsm["X_scpalm_integrated"], wanted)


def test_a_file_is_mapped_onto_an_integrated_one(
    tiny_bundle: Bundle, path: Path, expected: anndata.AnnData, tmp_path: Path
) -> None:
    expected.write_h5ad(tmp_path / "reference.h5ad")
    before = (tmp_path / "reference.h5ad").read_bytes()
    words = ["integrate", str(path), "--onto", str(tmp_path / "reference.h5ad"), "--label", "kind"]
    words += ["-o", str(tmp_path / "mapped.h5ad"), "--bundle", str(tiny_bundle.path)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    mapped = anndata.read_h5ad(tmp_path / "mapped.h5ad")
    assert mapped.obsm["X_scpalm_integrated"].shape == expected.obsm["X_scpalm_integrated"].shape
    assert set(mapped.obs["scpalm_reference_label"]) <= {"k", "l"}
    assert (mapped.obs["scpalm_reference_distance"] < 3).all() and (mapped.obs["scpalm_reference_share"] > 0).all()
    assert (tmp_path / "reference.h5ad").read_bytes() == before
    words[words.index("--onto") + 1] = str(path)
    failed = CliRunner().invoke(cli, words)
    assert isinstance(failed.exception, InputError) and "Integrate it first" in str(failed.exception)


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("", "invalid-parameter", "batch_key"),
        ("?batch_key=nothing", "no-obs-column", "nothing"),
        ("?batch_key=same", "one-batch", "All cells are of the batch 'x'"),
    ],
)
def test_what_cannot_be_integrated_is_refused(client: Client, path: Path, query: str, code: str, words: str) -> None:
    answer = client.post(f"/integrate{query}", content=path.read_bytes(), headers=H5AD)
    check_problem(answer, 422, code)
    assert words in answer.json()["detail"]
