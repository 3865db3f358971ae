"""Jobs over HTTP, with the fake session."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from scipy import sparse

from scpalm.app.jobs.files import LocalJobFiles
from scpalm.app.jobs.manifest import BODY_FILE
from tests.app.fakes import Client, FakeSession

ASYNC = {"Prefer": "respond-async"}
JSON_BODY = {"content-type": "application/json"}
H5AD = "application/x-hdf5"


def body_of(cells: int, seed: int = 0) -> dict[str, Any]:
    counts = np.random.default_rng(seed).poisson(0.5, (cells, 30))
    counts[:, 0] = 1
    table = sparse.csr_matrix(counts)
    return {
        "genes": [f"GENE{n}" for n in range(30)],
        "indptr": table.indptr.tolist(),
        "indices": table.indices.tolist(),
        "data": table.data.tolist(),
    }


def wait(client: Client, location: str) -> dict[str, Any]:
    """Follow the events of a job to its end."""
    events = client.get(f"{location}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    *_, last = events.text.strip().split("\n\n")
    name, data = last.split("\n")
    assert name == "event: end"
    state: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert state == client.get(location).json()
    return state


def accepted(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def test_the_result_is_the_same_as_the_synchronous_response(own_client: Client) -> None:
    client, body = own_client, body_of(40)
    for path in ("/embed?also=pathways", "/pathways", "/pathways?summary=true"):
        at_once = client.post(path, json=body).json()
        location = accepted(client.post(path, json=body, headers=ASYNC))
        state = wait(client, location)
        assert (state["state"], state["rows"], state["rows_done"]) == ("succeeded", 40, 40)
        assert client.get(f"{location}/result").json() == at_once


def test_the_result_has_the_requested_format(own_client: Client, tmp_path: Path) -> None:
    client, body = own_client, body_of(3)
    location = accepted(client.post("/embed", json=body, headers=ASYNC))
    wait(client, location)
    values = client.get(f"{location}/result").json()["values"]
    (tmp_path / "out.npy").write_bytes(
        client.get(f"{location}/result", headers={"Accept": "application/x-npy"}).content
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), values, rtol=1e-6)
    (tmp_path / "out.h5ad").write_bytes(client.get(f"{location}/result", headers={"Accept": H5AD}).content)
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"], values, rtol=1e-6)
    refused = client.get(f"{location}/result", headers={"Accept": "image/png"})
    assert refused.status_code == 406


def test_a_result_that_does_not_contain_the_body_is_sent_without_fetching_it(
    own_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = own_client
    location = accepted(client.post("/embed", json=body_of(3), headers=ASYNC))
    wait(client, location)

    local = LocalJobFiles.local

    def fetch(files: LocalJobFiles, name: str, scratch: Path) -> Any:
        assert name != BODY_FILE, "the body may be gigabytes in an object store"
        return local(files, name, scratch)

    monkeypatch.setattr("scpalm.app.jobs.files.LocalJobFiles.local", fetch)
    for accept in ("application/json", "application/x-npy", H5AD):
        assert client.get(f"{location}/result", headers={"Accept": accept}).status_code == 200


def test_the_same_request_is_the_same_job(own_client: Client) -> None:
    client = own_client
    first = accepted(client.post("/embed", json=body_of(5), headers=ASYNC))
    assert accepted(client.post("/embed", json=body_of(5), headers=ASYNC)) == first
    assert accepted(client.post("/embed", json=body_of(5, seed=1), headers=ASYNC)) != first
    assert accepted(client.post("/pathways", json=body_of(5), headers=ASYNC)) != first
    assert len(client.get("/jobs").json()["jobs"]) == 3


def test_an_idempotency_key_names_one_request(own_client: Client) -> None:
    client, key = own_client, {**ASYNC, "Idempotency-Key": "mine"}
    first = accepted(client.post("/embed", json=body_of(5), headers=key))
    assert accepted(client.post("/embed", json=body_of(5), headers=key)) == first
    other = client.post("/pathways", json=body_of(5), headers=key)
    assert other.status_code == 409 and other.json()["type"].endswith("idempotency-key-reused")
    assert client.post("/embed", json=body_of(5), headers={**key, "Idempotency-Key": "x" * 300}).status_code == 422


def test_a_job_that_fails_says_why(own_client: Client, session: FakeSession) -> None:
    client, body = own_client, body_of(4)
    session.poison = body["indices"][0]
    location = accepted(client.post("/embed", json=body, headers=ASYNC))
    state = wait(client, location)
    assert state["state"] == "failed" and "The model failed" in state["error"]
    refused = client.get(f"{location}/result")
    assert refused.status_code == 409 and "The model failed" in refused.json()["detail"]


def test_invalid_requests_are_errors_and_create_no_job(own_client: Client) -> None:
    client, wrong = own_client, body_of(4)
    wrong["data"][3] = -1
    refused = client.post("/embed", json=wrong, headers=ASYNC)
    assert refused.status_code == 422 and "negative" in refused.json()["detail"]
    assert client.post("/embed", content=b"{", headers=ASYNC | JSON_BODY).status_code == 400
    assert client.post("/impute", json=body_of(4), headers=ASYNC).status_code == 404, "the bundle has no decoder"
    assert client.get("/jobs").json()["jobs"] == []


def test_cancelled_jobs_have_no_result(own_client: Client, session: FakeSession, tmp_path: Path) -> None:
    client = own_client
    session.gate.clear()
    running = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    assert session.running.wait(20)
    waiting = accepted(client.post("/embed", json=body_of(21), headers=ASYNC))
    refused = client.get(f"{running}/result")
    assert refused.status_code == 409
    for location in (waiting, running):
        assert client.run(client.http.delete(location)).json()["state"] == "cancelled"
    session.gate.set()
    assert client.run(client.http.delete(running)).json()["state"] == "cancelled", "cancelling twice changes nothing"
    again = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    assert again != running and wait(client, again)["state"] == "succeeded"
    folders = [path for path in (tmp_path / "scpalm-jobs").iterdir() if path.is_dir()]
    assert [path.name for path in folders] == [again.rpartition("/")[2]], "cancelled jobs leave no files"


def test_a_job_ended_by_another_process_releases_its_model(own_client: Client, session: FakeSession) -> None:
    client, jobs = own_client, own_client.service.jobs
    session.gate.clear()
    running = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    waiting = accepted(client.post("/embed", json=body_of(21), headers=ASYNC))
    assert session.running.wait(20) and len(jobs._holds) == 2
    for location in (waiting, running):
        assert client.run(jobs.ledger.cancel(location.rpartition("/")[2]))
    ends = time.monotonic() + 20
    while jobs._holds:
        assert time.monotonic() < ends
        time.sleep(0.05)
    session.gate.set()
    assert wait(client, accepted(client.post("/embed", json=body_of(22), headers=ASYNC)))["state"] == "succeeded"


def test_unknown_jobs_are_not_found(client: Client) -> None:
    for answer in (
        client.get("/jobs/nope"),
        client.get("/jobs/nope/result"),
        client.get("/jobs/nope/events"),
        client.run(client.http.delete("/jobs/nope")),
    ):
        assert answer.status_code == 404 and answer.json()["type"].endswith("unknown-job")


def test_an_unfinished_job_continues_after_a_restart(
    make_app: Callable[..., FastAPI], session: FakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.jobs.store.CHUNK_ROWS", 512)
    monkeypatch.setattr("scpalm.app.jobs.attempt.CHUNK_ROWS", 512)
    results = tmp_path / "results"
    body = body_of(1500)
    with Client(make_app(results_dir=results)) as client:
        client.wait_until_loaded()
        expected = client.post("/embed", json=body).json()
    session.calls.clear()

    def block_after_one_chunk(number: int = 512 // 8) -> None:
        while sum(map(len, session.calls)) < number * 8 + 8:
            time.sleep(0.001)

    with Client(make_app(results_dir=results)) as client:
        client.wait_until_loaded()
        location = accepted(client.post("/embed", json=body, headers=ASYNC))
        block_after_one_chunk()
        session.gate.clear()
        client.submit(client.service.jobs.close()).result(20)
        session.gate.set()
    done_before = sum(map(len, session.calls))
    assert done_before < 1500
    session.calls.clear()
    with Client(make_app(results_dir=results)) as client:
        client.wait_until_loaded()
        assert wait(client, location)["state"] == "succeeded"
        assert client.get(f"{location}/result").json() == expected
    assert sum(map(len, session.calls)) <= 1500 - 512, "committed chunks must not be computed again"


def test_two_services_do_not_share_a_folder(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    with Client(make_app(results_dir=tmp_path / "results")) as first:
        first.wait_until_loaded()
        with Client(make_app(results_dir=tmp_path / "results")) as second:
            second.wait_until_loaded()
            assert "SCPALM_RESULTS_DIR" in second.get("/health/ready").json()["detail"]
        with Client(make_app()) as third, Client(make_app()) as fourth:
            assert third.wait_until_loaded().get("/health/ready").status_code == 200
            assert fourth.wait_until_loaded().get("/health/ready").status_code == 200


@pytest.mark.parametrize("accept", ["application/json", H5AD, "application/vnd.apache.arrow.stream"])
def test_all_readers_of_a_result_are_sent_one_stored_file(
    own_client: Client, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.http.routes.jobs.SMALL_ANSWER_BYTES", 10)
    client = own_client
    location = accepted(client.post("/embed", json=body_of(40), headers=ASYNC))
    assert wait(client, location)["state"] == "succeeded"
    parsers, calls = client.service.model().parsers, 0
    encode = parsers.encode

    async def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return await encode(*arguments)

    monkeypatch.setattr(parsers, "encode", counted)
    monkeypatch.setattr("scpalm.app.http.request.SMALL_ANSWER_BYTES", 0)
    asked = [client.submit(client.http.get(f"{location}/result", headers={"Accept": accept})) for _ in range(5)]
    answers = [one.result(30) for one in asked]
    answers.append(client.get(f"{location}/result", headers={"Accept": accept}))
    assert [answer.status_code for answer in answers] == [200] * 6, answers[0].text
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["content-type"] for answer in answers} == {accept}
    assert all("server-timing" in answer.headers for answer in answers)
    assert ("scpalm-note" in answers[-1].headers) == (accept != "application/json")
    assert calls == 1, "the result is encoded once"
    spool = client.service.limits.spool_dir
    # Neither folders of requests, nor files of the parser pool.
    assert not [*spool.glob(f"scpalm-{'?' * 32}"), *spool.glob(f"scpalm-{'?' * 8}/*")]
