"""/v2 gives the same values as the other routes, and errors in the form of the protocol."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from tests.app.fakes import Client
from tests.app.http.routes.test_ic50 import BODY, CELLS
from tests.training.bundles import exported
from tests.training.drug_response.small_heads import Head, write_head

KINDS = {"indptr": "INT64", "indices": "INT32", "data": "FP32", "genes": "BYTES", "drugs": "BYTES"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    folder = tmp_path_factory.mktemp("v2") / "bundle"
    return write_head(shutil.copytree(exported(tmp_path_factory).bundle, folder))


@pytest.fixture(scope="module")
def client(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("spool")
    settings = Settings(bundle=head.bundle.path, parser_processes=1, spool_dir=folder, results_dir=folder / "jobs")
    with Client(create_app(settings)) as loaded:
        yield loaded.wait_until_loaded()


def request(*outputs: str, **more: list[str]) -> dict[str, object]:
    inputs = [
        {"name": name, "datatype": KINDS.get(name, "BYTES"), "shape": [len(values)], "data": values}
        for name, values in {**BODY, **more}.items()
    ]
    return {"id": "7", "inputs": inputs, "outputs": [{"name": name} for name in outputs]}


def url(head: Head, rest: str = "/infer") -> str:
    return f"/v2/models/{head.bundle.name}{rest}"


def test_server_and_model_metadata(head: Head, client: Client) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for rest in ("", f"/versions/{head.bundle.version}"):
        model = client.get(url(head, rest)).json()
        assert model["versions"] == [head.bundle.version]
        assert {one["name"] for one in model["inputs"]} >= {"indptr", "indices", "data", "genes"}
        assert {one["name"]: one["shape"] for one in model["outputs"]}["embedding"] == [-1, 16]
        assert client.get(url(head, rest + "/ready")).json()["ready"]


def test_values_are_the_same_as_from_the_task_routes(head: Head, client: Client) -> None:
    answer = client.post(url(head), json=request("embedding", "pathways", "imputed", impute_genes=["GENE3", "GENE7"]))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["id"] == "7" and found["model_name"] == head.bundle.name
    outputs = {one["name"]: one for one in found["outputs"]}
    assert [one["name"] for one in found["outputs"]] == ["embedding", "pathways", "imputed"]
    reference = client.post("/embed?also=pathways,impute&genes=GENE3,GENE7", json=BODY).json()
    for name, values in (
        ("embedding", reference),
        ("pathways", reference["pathways"]),
        ("imputed", reference["impute"]),
    ):
        assert outputs[name]["shape"] == values["shape"]
        flat = np.float32(outputs[name]["data"]).reshape(values["shape"])
        np.testing.assert_array_equal(flat, np.float32(values["values"]))
    assert orjson.loads(outputs["imputed"]["parameters"]["columns"]) == ["GENE3", "GENE7"]


def test_drug_response_is_an_output(head: Head, client: Client) -> None:
    found = client.post(url(head), json=request("ic50", "ic50_upper", drugs=["aspirin", "CCO"])).json()
    reference = client.post("/ic50?drugs=aspirin,CCO", json=BODY).json()
    for one, values in zip(found["outputs"], (reference["values"], reference["ic50_upper"]["values"]), strict=True):
        np.testing.assert_array_equal(np.float32(one["data"]), np.float32(values).ravel())


def test_binary_tensors_in_requests_and_responses(head: Head, client: Client) -> None:
    arrays = {
        "indptr": np.array(BODY["indptr"], "<i8"),
        "indices": np.array(BODY["indices"], "<i4"),
        "data": np.array(BODY["data"], "<f4"),
    }
    blobs = {name: array.tobytes() for name, array in arrays.items()}
    genes = [str(gene).encode() for gene in BODY["genes"]]
    blobs["genes"] = b"".join(len(gene).to_bytes(4, "little") + gene for gene in genes)
    shapes = {name: [len(array)] for name, array in arrays.items()} | {"genes": [len(genes)]}
    inputs = [
        {"name": n, "datatype": KINDS[n], "shape": shapes[n], "parameters": {"binary_data_size": len(b)}}
        for n, b in blobs.items()
    ]
    outputs = [{"name": "embedding"}, {"name": "pathways", "parameters": {"binary_data": False}}]
    text = orjson.dumps({"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}})
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    answer = client.post(url(head), content=text + b"".join(blobs.values()), headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    described = orjson.loads(answer.content[:length])["outputs"]
    assert described[0]["parameters"]["binary_data_size"] == len(answer.content) - length
    values = np.frombuffer(answer.content[length:], "<f4").reshape(described[0]["shape"])
    npy = client.post("/embed", json=BODY, headers={"Accept": "application/x-npy"})
    np.testing.assert_array_equal(values, np.load(io.BytesIO(npy.content)))
    assert len(described[1]["data"]) == CELLS * described[1]["shape"][1]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"inputs": []}, 422, "no list 'inputs'"),
        ({"outputs": [{"name": "weather"}]}, 422, "Choose from embedding"),
        ({"outputs": [{"name": "ic50"}, {"name": "embedding"}]}, 422, "POST /ic50"),
        ({"parameters": {"scale": "cubic"}, "outputs": [{"name": "imputed"}]}, 422, "'log' or 'counts'"),
        ({"parameters": {"scale": "counts"}}, 422, "none of its outputs is requested"),
        ({"parameters": [1]}, 422, "not an object"),
        ({"inputs": [{"name": "indptr", "datatype": "FP32", "shape": [2], "data": [0, 1]}]}, 422, "INT datatype"),
    ],
)
def test_errors_have_the_form_of_the_protocol(
    head: Head, client: Client, change: dict[str, object], status: int, words: str
) -> None:
    answer = client.post(url(head), json=request("embedding") | change)
    assert answer.status_code == status and words in answer.json()["error"]
    assert answer.json()["detail"] == answer.json()["error"]


def test_errors_of_other_routes_have_the_form_of_the_protocol(head: Head, client: Client) -> None:
    assert "no model 'nobody'" in client.post("/v2/models/nobody/infer", json=request()).json()["error"]
    assert client.get(url(head, "/versions/99")).status_code == 404
    assert client.get("/v2/nothing").json()["error"]
    assert (
        "is not a number of bytes"
        in client.post(url(head), content=b"{}", headers={"Inference-Header-Content-Length": "x"}).json()["error"]
    )
    assert client.post(url(head), content=b"{").status_code == 400
    assert "error" not in client.post("/embed", content=b"{", headers={"content-type": "application/json"}).json()


def test_the_tensor_format_is_only_for_v2(client: Client) -> None:
    answer = client.post("/embed", content=b"{}", headers={"content-type": "application/vnd.scpalm.inference"})
    assert answer.status_code == 415
