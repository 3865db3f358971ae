"""Requests that become jobs: what an idempotency key gives, and what is charged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from scpalm.app.auth.keys import new_key
from tests.app.fakes import Client, FakeSession, write_bundle
from tests.app.http.routes.test_jobs import ASYNC, accepted, body_of, wait

KEYED = {**ASYNC, "Idempotency-Key": "k1"}
NPY = "application/x-npy"


def test_a_key_with_other_cells_is_refused(own_client: Client) -> None:
    client = own_client
    first = accepted(client.post("/embed", json=body_of(5), headers=KEYED))
    for path, body in (("/embed", body_of(5, seed=1)), ("/pathways", body_of(5)), ("/embed", body_of(6))):
        refused = client.post(path, json=body, headers=KEYED)
        assert refused.status_code == 409 and refused.json()["type"].endswith("idempotency-key-reused")
        assert "new key" in refused.json()["detail"] and refused.json()["field"] == "Idempotency-Key"
    assert wait(client, first)["rows"] == 5
    assert len(client.get("/jobs").json()["jobs"]) == 1
    assert client.get(f"{first}/result").json() == client.post("/embed", json=body_of(5)).json()


def test_an_honest_retry_gets_its_job(own_client: Client) -> None:
    client = own_client
    first = accepted(client.post("/embed", json=body_of(5), headers=KEYED))
    assert accepted(client.post("/embed", json=body_of(5), headers=KEYED | {"Accept": NPY})) == first, "another Accept"
    fresh = {**ASYNC, "Idempotency-Key": "k2"}
    assert accepted(client.post("/embed", json=body_of(5), headers=fresh | {"Accept": NPY})) == first, "a second key"
    assert client.post("/embed", json=body_of(6), headers=fresh).status_code == 409, "the second key is recorded"


def test_a_key_gives_its_job_after_the_model_was_replaced(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "own")
    with Client(make_app(bundle=bundle, reload_seconds=0.0)) as client:
        client.wait_until_loaded()
        first = accepted(client.post("/embed", json=body_of(5), headers=KEYED))
        wait(client, first)
        write_bundle(bundle, version="0.2")
        client.in_loop(client.service.models.poll_now)
        while client.get("/models/fake").json()["version"] != "0.2":
            pass
        assert accepted(client.post("/embed", json=body_of(5), headers=KEYED)) == first
        assert client.post("/embed", json=body_of(6), headers=KEYED).status_code == 409
        assert accepted(client.post("/embed", json=body_of(5), headers=ASYNC)) != first, "the new model computes again"


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_key_whose_job_has_no_result_starts_a_new_job(own_client: Client, session: FakeSession, end: str) -> None:
    client, body = own_client, body_of(5)
    if end == "failed":
        session.poison = body["indices"][0]
    else:
        session.gate.clear()
    first = accepted(client.post("/embed", json=body, headers=KEYED))
    if end == "cancelled":
        client.run(client.http.delete(first))
        session.gate.set()
    assert wait(client, first)["state"] == end
    session.poison = -1
    second = accepted(client.post("/embed", json=body, headers=KEYED))
    assert second != first and wait(client, second)["state"] == "succeeded"
    assert accepted(client.post("/embed", json=body, headers=KEYED)) == second


def test_the_length_of_a_key_is_checked_before_the_body_is_stored(own_client: Client) -> None:
    wrong = own_client.post("/embed", content=b"{", headers=KEYED | {"Idempotency-Key": "x" * 300})
    assert wrong.status_code == 422 and "300" in wrong.json()["detail"], "the body was not looked at"
    assert own_client.post("/embed", json=body_of(2), headers=KEYED | {"Idempotency-Key": ""}).status_code == 422


@pytest.fixture
def keyed(make_app: Callable[..., FastAPI], tmp_path: Path) -> Iterator[tuple[Client, dict[str, str]]]:
    """A client with a budget of 100 cells a minute."""
    key, entry = new_key("lab")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{**entry, "rows_per_minute": 100}]}))
    with Client(make_app(api_keys_file=tmp_path / "keys.json")) as client:
        yield client.wait_until_loaded(), {"X-API-Key": key}


def test_a_replay_costs_nothing(keyed: tuple[Client, dict[str, str]]) -> None:
    client, key = keyed
    first = accepted(client.post("/embed", json=body_of(60), headers=KEYED | key))
    for headers in (KEYED, ASYNC, KEYED | {"Idempotency-Key": "k2"}):
        assert accepted(client.post("/embed", json=body_of(60), headers=headers | key)) == first
    # 40 cells are left: this request may overdraw them once, and the next one must wait.
    accepted(client.post("/embed", json=body_of(61), headers=ASYNC | key))
    assert client.post("/embed", json=body_of(5), headers=ASYNC | key).status_code == 429


def test_a_job_that_cannot_be_stored_costs_nothing(
    keyed: tuple[Client, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, key = keyed

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        refused = client.post("/embed", json=body_of(90), headers=ASYNC | key)
        assert refused.status_code == 507 and refused.json()["type"].endswith("storage-full"), refused.text
        assert refused.headers["retry-after"]
    accepted(client.post("/embed", json=body_of(90), headers=ASYNC | key))


def test_the_same_request_twice_at_once_is_paid_once(keyed: tuple[Client, dict[str, str]]) -> None:
    client, key = keyed
    body = body_of(30)
    both = [client.submit(client.http.post("/embed", json=body, headers=KEYED | key)) for _ in range(3)]
    assert len({accepted(answer.result(20)) for answer in both}) == 1
    for seed in (1, 2):  # 70 cells are left, and the last request may overdraw
        accepted(client.post("/embed", json=body_of(35, seed=seed), headers=ASYNC | key))
