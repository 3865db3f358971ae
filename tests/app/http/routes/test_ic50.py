"""POST /ic50 and GET /drugs with a small random head: the values of the session, in every format and by job."""

from __future__ import annotations

import io
import shutil
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
from scpalm.model.drug_response.predictions import Predictions
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.sessions.session import open_session
from tests.app.fakes import Client
from tests.app.http.routes.test_cells import check_problem
from tests.training.bundles import exported
from tests.training.drug_response.small_heads import NAMES, Head, write_head
from tests.training.tiny import tiny_counts

CELLS = 21
COUNTS = sparse.csr_matrix(tiny_counts(CELLS, seed=5))
GENES = [f"GENE{i}" for i in range(COUNTS.shape[1])]
BODY = {
    "genes": GENES,
    "indptr": COUNTS.indptr.tolist(),
    "indices": COUNTS.indices.tolist(),
    "data": COUNTS.data.tolist(),
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    folder = tmp_path_factory.mktemp("ic50") / "bundle"
    return write_head(shutil.copytree(exported(tmp_path_factory).bundle, folder))


@pytest.fixture(scope="module")
def client(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("spool")
    settings = Settings(
        bundle=head.bundle.path, batch_cells=8, parser_processes=1, spool_dir=folder, results_dir=folder / "jobs"
    )
    with Client(create_app(settings)) as loaded:
        yield loaded.wait_until_loaded()


def expected(head: Head, drugs: list[str], mutation: np.ndarray | None = None) -> Predictions:
    """The result for the same cells, computed directly with the sessions."""
    matrix = CellMatrix(
        COUNTS.indptr.astype(np.int64),
        COUNTS.indices,
        COUNTS.data.astype(np.float32),
        GENES,
        list(map(str, range(CELLS))),
    )
    rows = head.session.panel.only(prepare(matrix, head.bundle.vocabulary).rows)
    embedding = open_session(head.bundle, device="cpu").encode(rows).h_C
    return head.session.predict(embedding, rows, [head.session.drugs.find(drug) for drug in drugs], mutation=mutation)


def test_json_has_values_interval_domain_units_and_terms(head: Head, client: Client) -> None:
    answer = client.post("/ic50?drugs=aspirin,Urea&drugs=CC(C)O", json=BODY)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    reference = expected(head, ["aspirin", "urea", "CC(C)O"])
    assert found["columns"] == ["Aspirin", "Urea", "CC(C)O"] and found["shape"] == [CELLS, 3]
    np.testing.assert_array_equal(np.float32(found["values"]), reference.ln_ic50)
    np.testing.assert_array_equal(np.float32(found["ic50_lower"]["values"]), reference.lower)
    np.testing.assert_array_equal(np.float32(found["ic50_upper"]["values"]), reference.upper)
    distance = np.array(found["cell_distance"]["values"], np.float32)
    np.testing.assert_array_equal(distance[:, 0], reference.cell_distance)
    about = found["drug_response"]
    assert about["units"] == "ln IC50 (uM)"
    assert about["interval"] == {"level": 0.9, "lower": "ic50_lower", "upper": "ic50_upper"}
    assert [drug["in_training"] for drug in about["drugs"]] == [True, True, False]
    assert about["drugs"][2]["similarity_to_training"] < 1
    assert about["terms"] and about["training_tissues"] and about["inputs"] == "expression"


def test_all_known_drugs_are_the_default(head: Head, client: Client) -> None:
    found = client.post("/ic50", json=BODY).json()
    assert found["columns"] == [drug.name for drug in head.session.drugs.drugs if drug.in_training]


def test_drugs_in_the_body_and_in_a_form(head: Head, client: Client, tmp_path: Path) -> None:
    reference = expected(head, ["Pyridine", "Caffeine"]).ln_ic50
    found = client.post("/ic50", json={**BODY, "drugs": ["pyridine", "caffeine"]}).json()
    np.testing.assert_array_equal(np.float32(found["values"]), reference)
    cells = anndata.AnnData(COUNTS)
    cells.var_names = GENES
    cells.write_h5ad(tmp_path / "cells.h5ad")
    files = {"file": (tmp_path / "cells.h5ad").read_bytes()}
    answer = client.post("/ic50", files=files, data={"drugs": ["pyridine", "caffeine"]})
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.h5ad").write_bytes(answer.content)
    back = anndata.read_h5ad(tmp_path / "answer.h5ad")
    np.testing.assert_array_equal(back.obsm["X_scpalm_ic50"], reference)
    assert back.obsm["X_scpalm_ic50_lower"].shape == reference.shape
    note = back.uns["scpalm"]
    assert note["columns"]["X_scpalm_ic50"].tolist() == ["Pyridine", "Caffeine"]
    assert note["drug_response"]["units"].startswith("ln IC50")


def test_form_fields_of_a_job_are_checked_before_it_is_accepted(client: Client, tmp_path: Path) -> None:
    cells = anndata.AnnData(COUNTS)
    cells.var_names = GENES
    cells.write_h5ad(tmp_path / "cells.h5ad")
    files = {"file": (tmp_path / "cells.h5ad").read_bytes()}
    before = len(client.get("/jobs").json()["jobs"])
    for drugs, reason in (
        ("\n".join(f"C{'C' * (n % 9)}O" for n in range(100_000)), "100,000 drugs"),
        ("no-such", "no-such"),
    ):
        answer = client.post("/ic50", files=files, data={"drugs": drugs}, headers={"Prefer": "respond-async"})
        assert answer.status_code in (413, 422) and reason in answer.json()["detail"], answer.text
    assert len(client.get("/jobs").json()["jobs"]) == before


def test_npy_has_only_the_values(head: Head, client: Client) -> None:
    answer = client.post("/ic50?drugs=urea", json=BODY, headers={"Accept": "application/x-npy"})
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), expected(head, ["urea"]).ln_ic50)


def test_mutations_are_read_per_cell_by_requests_and_jobs(head: Head, client: Client) -> None:
    names = list(head.session.mutation_names)
    calls = np.random.default_rng(0).integers(-1, 2, (CELLS, len(names)))
    table = {
        "genes": [*names[::-1], "unread"],
        "values": [[None if call < 0 else int(call) for call in row[::-1]] + [1] for row in calls],
    }
    reference = expected(head, ["urea"], calls).ln_ic50
    assert not np.array_equal(reference, expected(head, ["urea"]).ln_ic50)
    body = {**BODY, "drugs": ["urea"], "mutation": table}
    found = client.post("/ic50", json=body).json()
    np.testing.assert_array_equal(np.float32(found["values"]), reference)
    assert found["drug_response"]["inputs"] == "mutation"
    job = client.post("/ic50", json=body, headers={"Prefer": "respond-async"})
    assert job.status_code == 202, job.text
    until = time.monotonic() + 30
    while (state := client.get(job.headers["location"]).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert state["state"] == "succeeded", state
    result = client.get(job.headers["location"] + "/result").json()
    np.testing.assert_array_equal(np.float32(result["values"]), reference)
    assert result["drug_response"]["inputs"] == "mutation" and result["columns"] == ["Urea"]


def with_mutation(head: Head, path: Path) -> tuple[bytes, np.ndarray]:
    """An h5ad file with calls in ``obsm``, and the calls."""
    names = list(head.session.mutation_names)
    calls = np.random.default_rng(1).integers(-1, 2, (CELLS, len(names)))
    cells = anndata.AnnData(COUNTS)
    cells.var_names = GENES
    table = pd.DataFrame(np.where(calls < 0, np.nan, calls), columns=names, index=cells.obs_names)
    cells.obsm["mutation"] = table.assign(unread=1)[[*names[::-1], "unread"]]
    cells.write_h5ad(path)
    return path.read_bytes(), calls


def test_mutations_in_an_h5ad_file_by_request_job_and_command(head: Head, client: Client, tmp_path: Path) -> None:
    body, calls = with_mutation(head, tmp_path / "cells.h5ad")
    reference = expected(head, ["urea"], calls).ln_ic50
    headers = {"Content-Type": "application/x-hdf5", "Accept": "application/json"}
    found = client.post("/ic50?drugs=urea", content=body, headers=headers).json()
    np.testing.assert_array_equal(np.float32(found["values"]), reference)
    assert found["drug_response"]["inputs"] == "mutation"
    job = client.post("/ic50?drugs=urea", content=body, headers={**headers, "Prefer": "respond-async"})
    until = time.monotonic() + 30
    while client.get(job.headers["location"]).json()["state"] in ("queued", "running"):
        assert time.monotonic() < until
        time.sleep(0.05)
    np.testing.assert_array_equal(
        np.float32(client.get(job.headers["location"] + "/result").json()["values"]), reference
    )
    command = ["ic50", str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "out.h5ad"), "--drug", "urea"]
    done = CliRunner().invoke(cli, [*command, "--bundle", str(head.bundle.path)])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm_ic50"], reference)


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (np.ones((CELLS, 3)), "not-a-dataframe"),
        (pd.DataFrame({"A": ["x"] * CELLS}), "not-numbers"),
        (pd.DataFrame({"A": [0.5] * CELLS}), "invalid-parameter"),
    ],
)
def test_an_unreadable_table_is_an_error(client: Client, tmp_path: Path, table: object, code: str) -> None:
    cells = anndata.AnnData(COUNTS)
    cells.var_names = GENES
    cells.obsm["mutation"] = table.set_index(cells.obs_names) if isinstance(table, pd.DataFrame) else table
    cells.write_h5ad(tmp_path / "cells.h5ad")
    body = (tmp_path / "cells.h5ad").read_bytes()
    answer = client.post("/ic50?drugs=urea", content=body, headers={"Content-Type": "application/x-hdf5"})
    check_problem(answer, 422, code)


def test_a_cell_without_known_genes_is_null_and_reported(head: Head, client: Client) -> None:
    counts = COUNTS.toarray()
    counts[2, : len(head.session.panel)] = 0
    silent = sparse.csr_matrix(counts)
    parts = {"indptr": silent.indptr.tolist(), "indices": silent.indices.tolist(), "data": silent.data.tolist()}
    answer = client.post("/ic50?drugs=urea", json={**BODY, **parts})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["values"][2] == [None] and found["ic50_lower"]["values"][2] == [None]
    assert found["cell_distance"]["values"][2] == [None]
    np.testing.assert_array_equal(np.float32(found["values"][:2]), expected(head, ["urea"]).ln_ic50[:2])
    assert "expresses none" in found["drug_response"]["no_answer"]


@pytest.mark.parametrize(
    ("query", "extra", "code", "words"),
    [
        ("?drugs=vapourware", {}, "unknown-drug", "vapourware"),
        ("?drugs=C(", {}, "bad-smiles", "C("),
        ("?drugs=CCO.CCN", {}, "salt", "CCO.CCN"),
        ("?drugs=" + "C" * 1200, {}, "smiles-too-long", "1,200"),
        ("", {"drugs": {"a": 1}}, "invalid-parameter", "drugs"),
        ("", {"mutation": [1]}, "invalid-parameter", "mutation"),
        ("", {"mutation": {"genes": ["no such"], "values": [[1]] * CELLS}}, "invalid-parameter", "none of the 1"),
        ("", {"mutation": {"genes": ["no such"], "values": [[1]]}}, "invalid-parameter", "1 x 1"),
        ("", {"mutation": {"genes": ["a", "a"], "values": []}}, "invalid-parameter", "one twice"),
        ("", {"mutation": {"genes": ["a"], "values": "x"}}, "invalid-parameter", "numbers"),
        (
            "",
            {"mutation": {"genes": ["A"], "values": [[1]] * 20 + [[0.5]]}},
            "invalid-parameter",
            "number 21, 'A', is 0.5",
        ),
        (
            "",
            {"methylation": {"genes": ["X"], "values": [[2]] * CELLS}},
            "invalid-parameter",
            "is 2; it must be a fraction",
        ),
        ("", {"methylation": {"genes": ["X"], "values": [[0.2]] * CELLS}}, "invalid-parameter", "needs mutation"),
    ],
)
def test_invalid_requests_are_problems(
    client: Client, query: str, extra: dict[str, object], code: str, words: str
) -> None:
    answer = client.post(f"/ic50{query}", json={**BODY, **extra})
    check_problem(answer, 422, code)
    assert words in answer.json()["detail"]


def test_drug_response_cannot_be_combined_with_other_tasks(client: Client) -> None:
    answer = client.post("/embed?also=ic50", json=BODY)
    check_problem(answer, 422, "invalid-parameter", field="also")


def test_known_drugs_are_listed(client: Client) -> None:
    found = client.get("/drugs").json()
    assert [drug["name"] for drug in found["drugs"]] == list(NAMES)
    assert found["terms"]


def test_a_model_without_a_head_says_so(own_client: Client) -> None:
    check_problem(own_client.get("/drugs"), 404, "unsupported-task")
    check_problem(own_client.post("/ic50", json=BODY), 404, "unsupported-task")


def test_the_command_writes_the_same_values_as_the_service(head: Head, tmp_path: Path) -> None:
    cells = anndata.AnnData(COUNTS)
    cells.var_names = GENES
    cells.write_h5ad(tmp_path / "cells.h5ad")
    command = [
        "ic50",
        str(tmp_path / "cells.h5ad"),
        "-o",
        str(tmp_path / "out.h5ad"),
        "--bundle",
        str(head.bundle.path),
    ]
    done = CliRunner().invoke(cli, [*command, "--drug", "pyridine", "--drug", "Caffeine"])
    assert done.exit_code == 0, done.output
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(back.obsm["X_scpalm_ic50"], expected(head, ["Pyridine", "Caffeine"]).ln_ic50)
    assert back.uns["scpalm"]["drug_response"]["units"].startswith("ln IC50")
