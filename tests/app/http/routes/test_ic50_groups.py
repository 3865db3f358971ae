"""POST /ic50?by=: groups of cells and contrasts, by request, job, engine and command line, with a kernel head."""

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

import scpalm
from scpalm.app.cli.main import cli
from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.client.anndata_file import read_results
from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import DrugResponseSession
from scpalm.model.engine import Engine
from tests.app.fakes import Client
from tests.training.drug_response.small import make_small
from tests.training.drug_response.small_kernel import write_kernel_head
from tests.training.tiny import tiny_counts

NUM_CELLS = 24
COUNTS = tiny_counts(NUM_CELLS, seed=5)
TYPES = np.array(["tumour", "normal", "stroma"])[np.arange(NUM_CELLS) % 3]
GROUPS = ["normal", "stroma", "tumour"]
H5AD = {"Content-Type": "application/x-hdf5", "Accept": "application/json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_kernel_head(make_small(tmp_path_factory), tmp_path_factory.mktemp("by"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return scpalm.load(bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def client(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("spool")
    settings = Settings(
        bundle=bundle.path, batch_cells=8, parser_processes=1, spool_dir=folder, results_dir=folder / "jobs"
    )
    with Client(create_app(settings)) as loaded:
        yield loaded.wait_until_loaded()


def cells(bundle: Bundle) -> anndata.AnnData:
    adata = anndata.AnnData(sparse.csr_matrix(COUNTS), obs=pd.DataFrame({"type": TYPES}))
    adata.var_names = bundle.vocabulary.symbols[: COUNTS.shape[1]]
    return adata


def body(bundle: Bundle, folder: Path) -> bytes:
    cells(bundle).write_h5ad(folder / "cells.h5ad")
    return (folder / "cells.h5ad").read_bytes()


def test_a_group_is_answered_like_a_cell_with_its_summed_counts(
    bundle: Bundle, engine: Engine, client: Client, tmp_path: Path
) -> None:
    found = client.post("/ic50?by=type", content=body(bundle, tmp_path), headers=H5AD)
    assert found.status_code == 200, found.text
    answer = found.json()
    summed = anndata.AnnData(np.stack([COUNTS[name == TYPES].sum(axis=0) for name in GROUPS]))
    summed.var_names = bundle.vocabulary.symbols[: COUNTS.shape[1]]
    engine.ic50(summed)
    assert answer["obs_names"] == GROUPS and answer["drug_response"]["by"] == "type"
    assert answer["drug_response"]["inputs_used"] == ["expression"]
    for name, key in (("ic50_relative", "X_scpalm_ic50_relative"), ("ic50_percentile", "X_scpalm_ic50_percentile")):
        np.testing.assert_array_equal(np.array(answer[name]["values"], np.float32), summed.obsm[key])
    np.testing.assert_array_equal(np.array(answer["values"], np.float32), summed.obsm["X_scpalm_ic50"])
    assert answer["domain"] == summed.obs["scpalm_ic50_domain"].tolist()
    assert all(line.startswith("ACH-") for line in answer["nearest_line"])
    mean = [drug["mean_of_training_lines"] for drug in answer["drug_response"]["drugs"]]
    np.testing.assert_allclose(np.array(answer["values"]) - mean, answer["ic50_relative"]["values"], atol=1e-3)


def test_a_contrast_compares_all_groups_with_one(
    bundle: Bundle, engine: Engine, client: Client, tmp_path: Path
) -> None:
    content = body(bundle, tmp_path)
    url = "/ic50?by=type&contrast=normal&drugs=aspirin,CC(C)O"
    answer = client.post(url, content=content, headers=H5AD).json()
    values, upper = (np.array(part, np.float32) for part in (answer["values"], answer["ic50_upper"]["values"]))
    difference = np.array(answer["ic50_contrast"]["values"], np.float32)
    np.testing.assert_allclose(difference, values - values[0], atol=1e-6)
    width = np.array(answer["ic50_contrast_upper"]["values"], np.float32) - difference
    head = DrugResponseSession(bundle).kernel
    assert head is not None and (width[0] == 0).all()
    wanted = np.maximum(upper - values, (upper - values)[0])[1:] * head.head.widths.contrast
    np.testing.assert_allclose(width[1:], wanted, rtol=1e-4)
    assert answer["drug_response"]["contrast"] == {"with": "normal", "level": 0.9}

    accepted = client.post(url, content=content, headers={**H5AD, "Prefer": "respond-async"})
    assert accepted.status_code == 202, accepted.text
    job = accepted.headers["Location"]
    while client.get(job).json()["state"] in ("queued", "running"):
        time.sleep(0.02)
    result = client.get(f"{job}/result", headers={"Accept": "application/json"}).json()
    assert result["values"] == answer["values"] and result["ic50_contrast"] == answer["ic50_contrast"]

    stored = client.get(f"{job}/result", headers={"Accept": "application/x-hdf5"})
    (tmp_path / "job.h5ad").write_bytes(stored.content)
    back = anndata.read_h5ad(tmp_path / "job.h5ad")
    assert back.obs_names.tolist() == GROUPS
    np.testing.assert_array_equal(back.obsm["X_scpalm_ic50_contrast"], difference)

    adata = cells(bundle)
    engine.ic50(adata, ["aspirin", "CC(C)O"], by="type", contrast="normal")
    table = adata.uns["scpalm_ic50_by_type"]
    assert table["groups"].tolist() == GROUPS and table["drugs"].tolist() == ["aspirin", "CC(C)O"]
    np.testing.assert_array_equal(table["ic50_contrast"], difference)
    assert table["note"]["drug_response"]["by"] == "type" and not adata.obsm.keys()
    adata.write_h5ad(tmp_path / "noted.h5ad")


def test_files_of_groups(bundle: Bundle, engine: Engine, client: Client, tmp_path: Path) -> None:
    content = body(bundle, tmp_path)
    as_h5ad = H5AD | {"Accept": H5AD["Content-Type"]}
    (tmp_path / "answer.h5ad").write_bytes(client.post("/ic50?by=type", content=content, headers=as_h5ad).content)
    back = anndata.read_h5ad(tmp_path / "answer.h5ad")
    adata = cells(bundle)
    engine.ic50(adata, by="type")
    table = adata.uns["scpalm_ic50_by_type"]
    wanted = table["ic50"]
    fetched = read_results(tmp_path / "answer.h5ad", cells(bundle), None, copy=True)
    assert fetched is not None and fetched.uns["scpalm_ic50_by_type"].keys() == table.keys()
    for name in table.keys() - {"note"}:
        np.testing.assert_array_equal(fetched.uns["scpalm_ic50_by_type"][name], table[name])
    assert scpalm.pl.ic50(fetched, "type").figure is not None
    assert back.obs_names.tolist() == GROUPS
    np.testing.assert_array_equal(back.obsm["X_scpalm_ic50"], wanted)
    for name in ("out.h5ad", "out.csv"):
        words = ["ic50", str(tmp_path / "cells.h5ad"), "--by", "type", "-o", str(tmp_path / name)]
        result = CliRunner().invoke(cli, [*words, "--bundle", str(bundle.path)])
        assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm_ic50"], wanted)
    written = pd.read_csv(tmp_path / "out.csv", index_col="cell")
    assert written.index.tolist() == GROUPS and {"aspirin", "ic50_relative:aspirin", "domain"} <= set(written.columns)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("by=kind", "no column 'kind'"),
        ("by=type&contrast=Normal", "no group 'Normal'"),
        ("contrast=normal", "needs 'by'"),
    ],
)
def test_wrong_groups_are_problems(bundle: Bundle, client: Client, tmp_path: Path, query: str, text: str) -> None:
    answer = client.post(f"/ic50?{query}", content=body(bundle, tmp_path), headers=H5AD)
    assert answer.status_code == 422 and text in answer.text


def test_cells_without_obs_have_no_groups(bundle: Bundle, client: Client) -> None:
    genes = bundle.vocabulary.symbols[: COUNTS.shape[1]]
    answer = client.post("/ic50?by=type", json={"genes": genes, "X": COUNTS.tolist()})
    assert answer.status_code == 422 and "h5ad" in answer.text


def test_a_group_has_the_mutations_of_most_of_its_cells(
    bundle: Bundle, engine: Engine, client: Client, tmp_path: Path
) -> None:
    adata = cells(bundle)
    calls = pd.DataFrame({"A": (TYPES == "tumour").astype(np.int8), "B": np.int8(-1)}, index=adata.obs_names)
    adata.obsm["mutation"] = calls
    adata.write_h5ad(tmp_path / "mutated.h5ad")
    answer = client.post("/ic50?by=type", content=(tmp_path / "mutated.h5ad").read_bytes(), headers=H5AD)
    assert answer.status_code == 200, answer.text
    assert answer.json()["drug_response"]["inputs_used"] == ["expression", "mutation"]
    engine.ic50(adata, by="type")
    table = adata.uns["scpalm_ic50_by_type"]
    np.testing.assert_array_equal(np.array(answer.json()["values"], np.float32), table["ic50"])
    assert table["note"]["drug_response"]["inputs"] == "mutation"
