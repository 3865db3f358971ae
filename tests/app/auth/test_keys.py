from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from scpalm.app.auth.keys import KeyRing, KeysFileError, hash_key, new_key
from scpalm.app.errors import ForbiddenError, MissingKeyError
from tests.app.fakes import Client, FakeSession

BODY = {"genes": [f"GENE{n}" for n in range(12)], "indptr": [0, 2, 4], "indices": [0, 1, 2, 3], "data": [1, 2, 3, 4]}


def write(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    return path


def entry(name: str, key: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hash_key(key), **more}


def test_a_key_is_found_by_its_hash_and_nothing_else(tmp_path: Path) -> None:
    secret, made = new_key("lab")
    ring = KeyRing(write(tmp_path / "keys.json", dict(made), entry("other", "second")))
    assert ring.find(secret).name == "lab" and ring.find("second").name == "other"
    assert secret not in (tmp_path / "keys.json").read_text()
    for wrong in (None, "", "third", made["sha256"]):
        with pytest.raises(MissingKeyError):
            ring.find(wrong)


def test_the_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.auth.keys._CHECK_SECONDS", 0.0)
    path = write(tmp_path / "keys.json", entry("lab", "first", rows_per_minute=60))
    ring = KeyRing(path)
    assert ring.find("first").cells_per_minute == 60
    write(path, entry("lab", "first", rows_per_minute=70), entry("new", "second"))
    os.utime(path, ns=(1, 1))
    assert ring.find("second").name == "new"
    assert ring.find("first").cells_per_minute == 70
    path.write_text("{")
    assert ring.find("second").name == "new"
    path.unlink()
    assert ring.find("second").name == "new"
    write(path, entry("lab", "first"))
    with pytest.raises(MissingKeyError):
        ring.find("second")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [{"name": "a"}]}',
        '{"keys": [{"name": "a", "sha256": "plain"}]}',
        json.dumps({"keys": [entry("a", "x"), entry("a", "y")]}),
        json.dumps({"keys": [entry("a", "x"), entry("b", "x")]}),
        json.dumps({"keys": [entry("a", "x", rows_per_minute=0)]}),
        json.dumps({"keys": [entry("a", "x", bytes_per_minute="many")]}),
        json.dumps({"keys": [entry("a", "x", paths="/embed")]}),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(KeysFileError) as caught:
        KeyRing(tmp_path / "keys.json")
    assert "\n" not in str(caught.value)


@pytest.fixture
def guarded(make_app: Callable[..., FastAPI], tmp_path: Path) -> Callable[..., FastAPI]:
    path = write(
        tmp_path / "keys.json",
        entry("lab", "first"),
        entry("narrow", "second", paths=["/pathways"]),
        entry("poor", "third", rows_per_minute=3),
        entry("slow", "fourth", bytes_per_minute=100),
    )
    return lambda: make_app(api_keys_file=path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_over_http(guarded: Callable[[], FastAPI]) -> None:
    with Client(guarded()) as client:
        client.wait_until_loaded()
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200, "probes hold no keys"
        missing = client.post("/embed", json=BODY)
        assert missing.status_code == 401 and missing.headers["www-authenticate"] == "Bearer"
        assert missing.headers["content-type"] == "application/problem+json"
        assert client.get("/models", headers=bearer("wrong")).status_code == 401
        assert client.get("/jobs").status_code == 401
        assert client.post("/embed", json=BODY, headers=bearer("first")).status_code == 200
        assert client.post("/embed", json=BODY, headers={"X-API-Key": "first"}).status_code == 200
        assert client.post("/embed", json=BODY, headers=bearer("second")).status_code == 403
        assert client.post("/pathways", json=BODY, headers=bearer("second")).status_code == 200
        answers = [client.post("/embed", json=BODY, headers=bearer("third")) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60
        answers = [client.post("/embed", json=BODY, headers=bearer("fourth")) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]


def test_jobs_belong_to_their_key(guarded: Callable[[], FastAPI]) -> None:
    with Client(guarded()) as client:
        client.wait_until_loaded()
        mine = client.post("/embed", json=BODY, headers={**bearer("first"), "Prefer": "respond-async"})
        location = mine.headers["location"]
        assert client.get(location, headers=bearer("first")).status_code == 200
        assert client.get(location, headers=bearer("third")).status_code == 404
        assert client.get("/jobs", headers=bearer("third")).json() == {"jobs": []}


def test_a_deadline_that_passes_is_504_and_frees_the_queue(own_client: Client, session: FakeSession) -> None:
    session.gate.clear()
    late = own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": "0.5"})
    assert late.status_code == 504 and late.json()["type"].endswith("deadline")
    session.gate.set()
    for _ in range(100):
        if own_client.service.model().transport.idle:
            break
        own_client.run(asyncio.sleep(0.02))
    assert own_client.service.model().transport.idle
    assert own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": "20"}).status_code == 200
    for wrong in ("soon", "-1", "0", "nan", "inf", "1e9"):
        assert own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": wrong}).status_code == 422


def test_every_answer_has_the_headers_of_security_and_an_id(client: Client) -> None:
    for path in ("/models", "/nothing", "/health/live"):
        headers = client.get(path, headers={"X-Request-Id": "trace-1"}).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"] == "trace-1"
    forged = client.get("/models", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"]
    assert len(forged) == 32, "an id that could forge a line of the log is replaced"


def test_other_origins_are_told_nothing(client: Client) -> None:
    """CORS is off: a page of another site may not read an answer, nor ask whether it may send a body."""
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.run(client.http.options("/embed", headers=asked))
    assert preflight.status_code == 405
    for answer in (preflight, client.get("/models", headers=origin)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_refusal_names_the_path(tmp_path: Path) -> None:
    ring = KeyRing(write(tmp_path / "keys.json", entry("lab", "first", paths=["/embed"])))
    ring.find("first").check_path("/embed")
    with pytest.raises(ForbiddenError, match="/jobs"):
        ring.find("first").check_path("/jobs")
