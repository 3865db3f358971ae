"""Every parameter is read, or refused by name with the nearest known one; in the query, a form or JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpalm.model.errors import ParameterError
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import COMMON, CommonOptions
from scpalm.model.tasks.registry import tasks
from tests.app.fakes import Client
from tests.app.http.routes.test_cells import BODY, H5AD, check_problem, write_cells


@pytest.mark.parametrize(
    ("query", "words", "field"),
    [
        ("modle=fake", "Did you mean 'model'", "modle"),
        ("layers=counts", "Did you mean 'layer'", "layers"),
        ("model=a&model=b", "given 2 times", "model"),
        ("also=impute&scale=log&scale=counts", "given 2 times", "scale"),
        ("genes=CD3D", "add also=impute", "genes"),
        ("layer=a%00b", "NUL", "layer"),
        ("also=impute&genes=a%00b", "NUL", "genes"),
        ("%00=1", "NUL", ""),
        ("input=cuonts", "input", "input"),
    ],
)
def test_a_query_parameter_that_no_task_reads_is_refused(client: Client, query: str, words: str, field: str) -> None:
    answer = client.post(f"/embed?{query}", json=BODY)
    check_problem(answer, 422, "invalid-parameter", field=field)
    assert words in answer.json()["detail"]


def test_axios_brackets_and_a_singular_name_the_list(client: Client) -> None:
    for name in ("drugs[]", "drug"):
        answer = client.post("/ic50", params={name: "Imatinib"}, json=BODY)
        check_problem(answer, 422, "invalid-parameter", field=name)
        assert "Did you mean 'drugs'" in answer.json()["detail"]
    assert "cannot be combined" in client.post("/ic50?also=impute", json=BODY).json()["detail"]


@pytest.mark.parametrize(
    ("members", "words", "field"),
    [
        ({"inptu": "counts"}, "Did you mean 'input'", "inptu"),
        ({"scale": "counts"}, "add also=impute", "scale"),
        ({"model": "other"}, "?model=other", "model"),
        ({"also": "impute", "scale": "square"}, "scale", "scale"),
        ({"input": ["log", "counts"]}, "given 2 times", "input"),
        ({"layer": "a\0b"}, "NUL", "layer"),
        ({"also": 5}, "must be a list", "also"),
        ({"AAAC-1": {"CD3D": 4}}, "no JSON member", "AAAC-1"),
    ],
)
def test_a_json_member_that_no_task_reads_is_refused(
    client: Client, members: dict[str, object], words: str, field: str
) -> None:
    answer = client.post("/embed", json={**BODY, **members})
    check_problem(answer, 422, "invalid-parameter", field=field)
    assert words in answer.json()["detail"]


def test_options_come_from_any_place(client: Client, tmp_path: Path) -> None:
    content = write_cells(tmp_path / "cells.h5ad")
    asked = {"input": "counts"}
    answers = [
        client.post("/embed", params=asked, json=BODY),
        client.post("/embed", json={**BODY, **asked}),
        client.post("/embed", files={"file": content}, data=asked, headers={"Accept": "application/json"}),
    ]
    assert all("declared as counts" in answer.json()["input"]["why"] for answer in answers)


def test_two_places_that_disagree_are_refused(client: Client, tmp_path: Path) -> None:
    answer = client.post("/embed?input=counts", json={**BODY, "input": "log"})
    check_problem(answer, 422, "invalid-parameter", field="input")
    assert client.post("/embed?input=counts", json={**BODY, "input": "counts"}).status_code == 200
    files = {"file": write_cells(tmp_path / "cells.h5ad")}
    answer = client.post("/embed?input=counts", files=files, data={"input": "log"})
    check_problem(answer, 422, "invalid-parameter", field="input")


def test_form_fields_are_read_or_refused(client: Client, tmp_path: Path) -> None:
    files = {"file": write_cells(tmp_path / "cells.h5ad")}
    for data, words in (
        ({"layers": "counts"}, "Did you mean 'layer'"),
        ({"layer": "counts"}, "counts"),
        ({"input": ["log", "counts"]}, "given 2 times"),
    ):
        answer = client.post("/embed", files=files, data=data)
        assert answer.status_code == 422 and words in answer.json()["detail"], answer.text
    assert client.post("/embed", files=files, data={"layer": "", "model": "fake"}).status_code == 200
    check_problem(client.post("/embed", files=files, data={"model": "other"}), 404, "unknown-model")


def test_other_routes_refuse_unknown_parameters_but_health_checks_do_not(client: Client) -> None:
    check_problem(client.get("/models?modell=x"), 422, "invalid-parameter", field="modell")
    check_problem(client.get("/drugs?modle=x"), 422, "invalid-parameter", field="modle")
    check_problem(client.get("/jobs?state=running"), 422, "invalid-parameter", field="state")
    assert client.get("/health/ready?t=1").status_code == 200


def test_head_and_a_slash_at_the_end(client: Client) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/v2/health/ready", "/health/ready/"):
        answer = client.head(path)
        assert answer.status_code == 200, path
    plain, slash = (client.post(path, json=BODY, follow_redirects=False) for path in ("/embed", "/embed/"))
    assert slash.status_code == 200 and slash.json()["values"] == plain.json()["values"]
    assert client.get("/models//", follow_redirects=False).status_code == 200


def test_a_job_keeps_the_options_of_its_body(client: Client) -> None:
    answer = client.post("/embed", json={**BODY, "input": "log"}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    refused = client.post("/embed", json={**BODY, "inptu": "log"}, headers={"Prefer": "respond-async"})
    check_problem(refused, 422, "invalid-parameter", field="inptu")


def test_parameters_of_the_inference_protocol_are_known(client: Client) -> None:
    inputs = [
        {"name": "genes", "datatype": "BYTES", "shape": [30], "data": BODY["genes"]},
        {"name": "indptr", "datatype": "INT64", "shape": [3], "data": BODY["indptr"]},
        {"name": "indices", "datatype": "INT32", "shape": [3], "data": BODY["indices"]},
        {"name": "data", "datatype": "FP32", "shape": [3], "data": BODY["data"]},
    ]
    answer = client.post("/v2/models/fake/infer", json={"inputs": inputs, "parameters": {"scal": "counts"}})
    assert answer.status_code == 422 and "Did you mean 'scale'" in answer.json()["error"]
    answer = client.post("/v2/models/fake/infer?inptu=log", json={"inputs": inputs})
    assert answer.status_code == 422 and "'input'" in answer.json()["error"]


# --- the same bytes under another type


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "", "application/x-www-form-urlencoded", "application/json"]
)
def test_the_first_bytes_choose_the_reader(client: Client, tmp_path: Path, kind: str) -> None:
    headers = {"Content-Type": kind, "Accept": "application/json"} if kind else {"Accept": "application/json"}
    h5ad = client.post("/embed", content=write_cells(tmp_path / "cells.h5ad"), headers=headers)
    assert h5ad.status_code == 200, h5ad.text
    assert client.post("/embed", content=json.dumps(BODY).encode(), headers=headers).status_code == 200


def test_the_default_answer_follows_what_came(client: Client, tmp_path: Path) -> None:
    octets = {"Content-Type": "application/octet-stream", "Accept": "*/*"}
    assert client.post("/embed", content=json.dumps(BODY).encode(), headers=octets).headers["content-type"] == (
        "application/json"
    )
    answer = client.post("/embed", content=write_cells(tmp_path / "c.h5ad"), headers=octets)
    assert answer.headers["content-type"] == H5AD


def test_undeclared_compression_and_a_form_under_another_type(client: Client, tmp_path: Path) -> None:
    import gzip

    import zstandard

    content, headers = write_cells(tmp_path / "cells.h5ad"), {"Content-Type": H5AD, "Accept": "application/json"}
    wanted = client.post("/embed", content=content, headers=headers).json()["values"]
    form = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="c"\r\n\r\n' + content + b"\r\n--xyz--\r\n"
    for body in (gzip.compress(content), zstandard.compress(content), form):
        answer = client.post("/embed", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["values"] == wanted
    packed_json = gzip.compress(json.dumps(BODY).encode())
    assert client.post("/embed", content=packed_json, headers={"Content-Type": "application/json"}).status_code == 200


def test_a_10x_file_is_answered_with_h5ad(client: Client, tmp_path: Path) -> None:
    import anndata
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("matrix")
        for part, values in (("data", BODY["data"]), ("indices", BODY["indices"]), ("indptr", BODY["indptr"])):
            group[part] = np.array(values, "i8")
        group["shape"], group["barcodes"] = np.array([30, 2]), np.array([b"a", b"b"])
        names = np.array([name.encode() for name in BODY["genes"]])  # type: ignore[attr-defined]
        group["features/id"] = group["features/name"] = names
    answer = client.post("/embed", content=(tmp_path / "x.h5").read_bytes(), headers={"Content-Type": H5AD})
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.h5ad").write_bytes(answer.content)
    back = anndata.read_h5ad(tmp_path / "answer.h5ad")
    assert back.obs_names.tolist() == ["a", "b"] and back.var_names.tolist() == BODY["genes"]
    assert back.obsm["X_scpalm"].shape == (2, 3)
    wanted = np.float32(client.post("/embed", json=BODY).json()["values"])
    np.testing.assert_array_equal(back.obsm["X_scpalm"], wanted)


# --- the one list of options


def test_common_options_are_attributes_of_a_spec() -> None:
    assert set(COMMON) <= set(RequestSpec.__dataclass_fields__)
    plain = RequestSpec(("embed",))
    assert all(getattr(plain, name) == CommonOptions.model_fields[name].default for name in COMMON)


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["query parameter", "form field", "JSON member"]),
)
def test_any_name_is_read_or_refused(name: str, place: str) -> None:
    spec = RequestSpec(("embed",))
    known = spec.option_names(place)  # type: ignore[arg-type]
    try:
        read = spec.with_options({name: "log"}, place)  # type: ignore[arg-type]
        read.refuse_unread()
    except ParameterError:
        return
    assert name in known and read != spec


def test_a_task_cannot_take_a_name_that_every_request_has() -> None:
    from scpalm.model.tasks import registry
    from scpalm.model.tasks.task import TaskOptions

    class Taken(TaskOptions):
        layer: str = ""

    class Odd:
        name, options = "odd", Taken

    tasks()
    registry._registered["odd"] = Odd()  # type: ignore[assignment]
    try:
        with pytest.raises(ValueError, match="'layer'"):
            registry._check_option_names()
    finally:
        del registry._registered["odd"]
