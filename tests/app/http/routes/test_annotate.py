"""POST /annotate with a small bundle: the reference's answers in every format, by job, with a file, and by vote."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse
from typer.testing import CliRunner

from scpalm.app.cli.main import cli
from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.model.annotation.bundled import reference_of
from scpalm.model.annotation.reference import Annotation
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.genes.prepare import prepare
from tests.app.fakes import Client
from tests.app.http.routes.test_cells import check_problem
from tests.training.bundles import exported
from tests.training.small_reference import ENTRIES, NAMES, add_small_reference, tiny_matrix

MATRIX = tiny_matrix(21, seed=5)
BODY = {
    "genes": MATRIX.genes,
    "indptr": MATRIX.indptr.tolist(),
    "indices": MATRIX.indices.tolist(),
    "data": MATRIX.data.tolist(),
}
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("annotate") / "bundle"
    return add_small_reference(shutil.copytree(exported(tmp_path_factory).bundle, folder))


@pytest.fixture(scope="module")
def client(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("spool")
    settings = Settings(
        bundle=bundle.path, batch_cells=8, parser_processes=1, spool_dir=folder, results_dir=folder / "jobs"
    )
    with Client(create_app(settings)) as loaded:
        yield loaded.wait_until_loaded()


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> Annotation:
    session = open_runtime(bundle, device="cpu")
    embedding = session.encode(prepare(MATRIX, bundle.vocabulary).rows).embedding
    return reference_of(bundle, session.info.embedding_width).reference.annotate(embedding)


def as_h5ad(path: Path, num_cells: int = 21, seed: int = 5, **obs: object) -> bytes:
    matrix = tiny_matrix(num_cells, seed)
    counts = sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(num_cells, len(matrix.genes)))
    index = [f"cell{row}" for row in range(num_cells)]
    adata = anndata.AnnData(counts, obs=pd.DataFrame(obs, index=index), var=pd.DataFrame(index=matrix.genes))
    adata.write_h5ad(path)
    return path.read_bytes()


def test_each_cell_gets_labels_probability_and_distance(client: Client, expected: Annotation) -> None:
    answer = client.post("/annotate", json=BODY)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["shape"] == [21, 1] and [value for (value,) in found["values"]] == found["label"]
    assert found["label"] == found["nearest_label"] == expected.nearest_label.tolist()
    assert all(
        {first, second} == set(NAMES) for first, second in zip(found["label"], found["second_label"], strict=True)
    )
    np.testing.assert_array_equal(np.float32(found["probability"]), expected.probability.astype(np.float32))
    np.testing.assert_array_equal(np.float32(found["distance"]), expected.distance.astype(np.float32))
    assert found["unknown"] == [0] * 21
    broad = {entry.name: entry.broad for entry in ENTRIES}
    assert [broad[name] for name in found["cell_type"]] == found["label"]
    assert found["annotation"]["labels"] == list(NAMES)
    assert found["annotation"]["cell_ontology"]["naive B cell"] == "CL:0000788"


def test_a_cell_alone_gets_the_same_answer(client: Client) -> None:
    whole = client.post("/annotate", json=BODY).json()
    row = tiny_matrix(21, seed=5).select(np.array([13]))
    one = {
        "genes": row.genes,
        "indptr": row.indptr.tolist(),
        "indices": row.indices.tolist(),
        "data": row.data.tolist(),
    }
    alone = client.post("/annotate", json=one).json()
    for name in ("label", "cell_type", "probability", "distance"):
        assert alone[name] == [whole[name][13]]


def test_all_formats_have_the_labels_as_text(client: Client, expected: Annotation, tmp_path: Path) -> None:
    labels = expected.nearest_label.tolist()
    npy = client.post("/annotate", json=BODY, headers={"Accept": "application/x-npy"})
    assert np.load(io.BytesIO(npy.content))[:, 0].tolist() == labels
    arrow = client.post("/annotate", json=BODY, headers={"Accept": ARROW})
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table["label"].to_pylist() == labels and table["probability"].type == pa.float32()
    body = as_h5ad(tmp_path / "in.h5ad")
    h5ad = client.post("/annotate", content=body, headers={"Content-Type": "application/x-hdf5"})
    assert h5ad.status_code == 200, h5ad.text
    (tmp_path / "out.h5ad").write_bytes(h5ad.content)
    obs = anndata.read_h5ad(tmp_path / "out.h5ad").obs
    assert obs["scpalm_label"].tolist() == labels and obs["scpalm_label"].dtype == "category"
    np.testing.assert_array_equal(obs["scpalm_distance"], expected.distance.astype(np.float32))


def test_labels_come_with_other_results(client: Client, expected: Annotation) -> None:
    found = client.post("/embed?also=annotate,pathways", json=BODY).json()
    assert found["label"] == expected.nearest_label.tolist() and len(found["probability"]) == 21
    assert found["values"] == client.post("/embed", json=BODY).json()["values"]
    assert found["pathways"]["values"]


def test_cells_of_a_group_vote(client: Client, tmp_path: Path) -> None:
    groups = ["x"] * 10 + ["y"] * 10 + [""]
    body = as_h5ad(tmp_path / "in.h5ad", leiden=groups)
    answer = client.post(
        "/annotate?vote=leiden",
        content=body,
        headers={"Content-Type": "application/x-hdf5", "Accept": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    found = pd.DataFrame({name: answer.json()[name] for name in ("label", "voted_label", "vote_share")})
    for rows in (slice(0, 10), slice(10, 20)):
        counts = found["label"][rows].value_counts()
        assert set(found["voted_label"][rows]) <= set(counts[counts == counts.max()].index)
        np.testing.assert_allclose(found["vote_share"][rows], counts.max() / 10)
    assert found["voted_label"][20] == found["label"][20] and found["vote_share"][20] == 1
    missing = client.post("/annotate?vote=louvain", content=body, headers={"Content-Type": "application/x-hdf5"})
    check_problem(missing, 422, "no-obs-column", field="louvain")
    check_problem(client.post("/annotate?vote=leiden", json=BODY), 422, "no-obs", field="leiden")


def wait_for(client: Client, location: str) -> None:
    deadline = time.monotonic() + 60
    while (state := client.get(location).json())["state"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    assert state["state"] == "succeeded", state


def test_a_labelled_file_takes_the_place_of_the_reference(client: Client, bundle: Bundle, tmp_path: Path) -> None:
    labelled = as_h5ad(tmp_path / "reference.h5ad", 40, 8, kind=[f"type {i % 3}" for i in range(39)] + [""])
    body = as_h5ad(tmp_path / "in.h5ad", leiden=["x"] * 21)
    files = {"file": ("in.h5ad", body), "reference": ("atlas.h5ad", labelled)}
    asked = {"reference_label": "kind", "vote": "leiden"}
    answer = client.post("/annotate", files=files, data=asked, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["annotation"]["labels"] == ["type 0", "type 1", "type 2"]
    assert set(found["nearest_label"]) <= {"type 0", "type 1", "type 2"} and len(set(found["voted_label"])) == 1

    job = client.post("/annotate", files=files, data=asked, headers={"Prefer": "respond-async"})
    assert job.status_code == 202, job.text
    wait_for(client, job.headers["Location"])
    result = client.get(f"{job.headers['Location']}/result", headers={"Accept": "application/json"}).json()
    names = ("label", "second_label", "nearest_label", "probability", "distance", "voted_label", "vote_share")
    assert {name: result[name] for name in names} == {name: found[name] for name in names}
    again = client.post("/annotate", files=files, data=asked, headers={"Prefer": "respond-async"})
    assert again.headers["Location"] == job.headers["Location"]
    other = {**files, "reference": ("atlas.h5ad", as_h5ad(tmp_path / "b.h5ad", 40, 9, kind=["a", "b"] * 20))}
    different = client.post("/annotate", files=other, data=asked, headers={"Prefer": "respond-async"})
    assert different.headers["Location"] != job.headers["Location"]

    command = ["annotate", str(tmp_path / "in.h5ad"), "-o", str(tmp_path / "out.csv"), "--vote", "leiden"]
    options = ["--reference", str(tmp_path / "reference.h5ad"), "--label", "kind", "--bundle", str(bundle.path)]
    ran = CliRunner().invoke(cli, [*command, *options])
    assert ran.exit_code == 0, ran.output
    table = pd.read_csv(tmp_path / "out.csv")
    for name in ("label", "second_label", "voted_label"):
        assert table[name].tolist() == found[name]
    np.testing.assert_array_equal(np.float32(table["probability"]), np.float32(found["probability"]))


def test_the_command_uses_the_reference_of_the_model(
    client: Client, bundle: Bundle, expected: Annotation, tmp_path: Path
) -> None:
    as_h5ad(tmp_path / "in.h5ad")
    command = ["annotate", str(tmp_path / "in.h5ad"), "-o", str(tmp_path / "out.csv"), "--bundle", str(bundle.path)]
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == 0, ran.output
    assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == expected.nearest_label.tolist()


def test_errors_name_the_labelled_file(client: Client, tmp_path: Path) -> None:
    body, labelled = as_h5ad(tmp_path / "in.h5ad"), as_h5ad(tmp_path / "r.h5ad", 40, 8, kind=["a", "b"] * 20)

    def post(reference: bytes, path: str = "/annotate", **fields: str) -> httpx.Response:
        return client.post(path, files={"file": ("in.h5ad", body), "reference": ("r.h5ad", reference)}, data=fields)

    missing = post(labelled)
    check_problem(missing, 422, "no-obs-column", field="reference")
    assert "The reference 'reference': obs has no column 'cell_type'" in missing.json()["detail"]
    for answer in (
        post(labelled, reference_label="kind", reference_layer="spliced"),
        post(b"\x89HDF\r\n\x1a\nbroken", reference_label="kind"),
        post(labelled, "/ic50"),
    ):
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["field"] in ("reference", "file") and "reference" in answer.json()["detail"]
    check_problem(client.post("/annotate?reference_label=kind", json=BODY), 422, "invalid-parameter")


def test_v2_has_the_labels_as_text(client: Client, expected: Annotation) -> None:
    shapes = {"genes": "BYTES", "indptr": "INT64", "indices": "INT32", "data": "FP32"}
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(BODY[name])], "data": BODY[name]}
        for name, kind in shapes.items()
    ]
    request = {"inputs": inputs, "outputs": [{"name": "label"}, {"name": "probability"}]}
    answer = client.post("/v2/models/tiny/infer", json=request)
    assert answer.status_code == 200, answer.text
    label, probability = answer.json()["outputs"]
    assert label["datatype"] == "BYTES" and label["data"] == expected.nearest_label.tolist()
    np.testing.assert_array_equal(np.float32(probability["data"]), expected.probability.astype(np.float32))
