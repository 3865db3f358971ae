from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scpalm.app.auth.budgets import Budgets, MemoryBudgetStore
from scpalm.app.auth.keys import ApiKey
from scpalm.app.http.middleware.guard import GuardMiddleware
from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from tests.app.auth.test_keys import entry, write
from tests.app.fakes import Client, FakeSession
from tests.app.queue.conftest import until

BODY = {"genes": [f"GENE{n}" for n in range(12)], "indptr": [0, 2, 4], "indices": [0, 1, 2, 3], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def guarded(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An app with API keys. Tests use up their budgets, so each test needs its own key."""
    folder = tmp_path_factory.mktemp("guarded")
    path = write(
        folder / "keys.json",
        entry("lab", "first"),
        entry("narrow", "second", paths=["/pathways"]),
        entry("poor", "third", rows_per_minute=3),
        entry("slow", "fourth", bytes_per_minute=100),
        entry("other", "fifth"),
        entry("embedder", "sixth", paths=["/embed", "/v2", "/jobs"]),
        entry("protocol", "seventh", paths=["/v2"]),
        entry("spent", "eighth", rows_per_minute=2),
    )
    settings = Settings(bundle=bundle_dir, spool_dir=folder, api_keys_file=path, parser_processes=1)
    with Client(create_app(settings, lambda *_: FakeSession())) as client:
        yield client.wait_until_loaded()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_grant_access_until_their_budget_is_used_up(guarded: Client) -> None:
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert guarded.get(path).status_code == 200, "health checks need no key"
    assert guarded.get("/metrics").status_code == 401, "metrics tell how much the service is used"
    missing = guarded.post("/embed", json=BODY)
    assert missing.status_code == 401 and missing.headers["www-authenticate"] == "Bearer"
    assert missing.headers["content-type"] == "application/problem+json"
    assert guarded.get("/models", headers=bearer("wrong")).status_code == 401
    assert guarded.get("/jobs").status_code == 401
    assert guarded.post("/embed", json=BODY, headers=bearer("first")).status_code == 200
    assert guarded.post("/embed", json=BODY, headers={"X-API-Key": "first"}).status_code == 200
    assert guarded.post("/embed", json=BODY, headers=bearer("second")).status_code == 403
    assert guarded.post("/pathways", json=BODY, headers=bearer("second")).status_code == 200
    answers = [guarded.post("/embed", json=BODY, headers=bearer("third")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    answers = [guarded.post("/embed", json=BODY, headers=bearer("fourth")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_a_key_over_its_budget_can_still_read(guarded: Client) -> None:
    key = bearer("eighth")
    job = guarded.post("/embed", json=BODY, headers={**key, "Prefer": "respond-async"})
    assert guarded.post("/embed", json={**BODY, "data": [5, 6, 7, 8]}, headers=key).status_code == 429
    for path in ("/models", "/models/fake", "/jobs", job.headers["location"]):
        assert guarded.get(path, headers=key).status_code == 200, path
    assert guarded.run(guarded.http.delete(job.headers["location"], headers=key)).status_code == 200


FORM = {"also": (None, "pathways"), "file": ("cells.json", json.dumps(BODY))}
ALSO = [
    ("/embed?also=pathways", {"json": BODY}),
    ("/embed?also=impute,pathways", {"json": BODY}),
    ("/embed", {"json": {**BODY, "also": ["pathways"]}}),
    ("/embed", {"files": FORM}),
    ("/pathways", {"json": BODY}),
]


def infer_body(output: str) -> dict[str, object]:
    inputs = [
        {"name": "indptr", "datatype": "INT64", "shape": [3], "data": BODY["indptr"]},
        {"name": "indices", "datatype": "INT32", "shape": [4], "data": BODY["indices"]},
        {"name": "data", "datatype": "FP32", "shape": [4], "data": BODY["data"]},
        {"name": "genes", "datatype": "BYTES", "shape": [12], "data": BODY["genes"]},
    ]
    return {"inputs": inputs, "outputs": [{"name": output}]}


@pytest.mark.parametrize("prefer", ["", "respond-async"])
@pytest.mark.parametrize(("path", "body"), ALSO)
def test_a_key_for_one_task_gets_no_other_one(guarded: Client, path: str, body: dict[str, object], prefer: str) -> None:
    headers = {**bearer("sixth"), "Prefer": prefer}
    refused = guarded.post(path, headers=headers, **body)
    assert refused.status_code == 403 and refused.json()["type"].endswith("key-not-allowed"), refused.text
    assert "pathways" in refused.json()["detail"] or "impute" in refused.json()["detail"]
    assert guarded.post("/embed", headers=headers, json=BODY).status_code in (200, 202)


def test_a_key_for_one_task_gets_only_its_outputs_under_v2(guarded: Client) -> None:
    path = f"/v2/models/{guarded.service.model().bundle.name}/infer"
    for key, output, status in (
        ("sixth", "embedding", 200),
        ("sixth", "pathways", 403),
        ("seventh", "pathways", 200),  # this key names no task
    ):
        answer = guarded.post(path, headers=bearer(key), json=infer_body(output))
        assert answer.status_code == status, answer.text


def test_jobs_belong_to_their_key(guarded: Client) -> None:
    job = guarded.post("/embed", json=BODY, headers={**bearer("first"), "Prefer": "respond-async"})
    location = job.headers["location"]
    assert guarded.get(location, headers=bearer("first")).status_code == 200
    assert guarded.get(location, headers=bearer("fifth")).status_code == 404
    assert guarded.get("/jobs", headers=bearer("fifth")).json() == {"jobs": []}


def test_a_deadline_that_passes_is_504_and_frees_the_queue(own_client: Client, session: FakeSession) -> None:
    session.gate.clear()
    late = own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": "0.5"})
    assert late.status_code == 504 and late.json()["type"].endswith("deadline")
    session.gate.set()
    own_client.run(until(lambda: own_client.service.model().transport.idle))
    assert own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": "20"}).status_code == 200
    for wrong in ("soon", "-1", "0", "nan", "inf", "1e9"):
        assert own_client.post("/embed", json=BODY, headers={"X-Request-Timeout": wrong}).status_code == 422


def test_every_response_has_security_headers_and_an_id(client: Client) -> None:
    for path in ("/models", "/nothing", "/health/live"):
        headers = client.get(path, headers={"X-Request-Id": "trace-1"}).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"] == "trace-1"
    forged = client.get("/models", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"]
    assert len(forged) == 32, "an id that could forge a log line is replaced"


def test_cross_origin_pages_get_no_permission(client: Client) -> None:
    """CORS is off: pages of other sites can neither read responses nor get a preflight accepted."""
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = client.run(client.http.options("/embed", headers=asked))
    assert preflight.status_code == 405
    for answer in (preflight, client.get("/models", headers=origin)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_bytes_are_charged_in_steps_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scpalm.app.http.middleware.guard.CHARGE_BYTES", 10)
    charged: list[int] = []

    class Counting(Budgets):
        async def charge_bytes(self, key: ApiKey | None, num_bytes: int) -> None:
            charged.append(num_bytes)

    class OneKey:
        async def refresh(self) -> None:
            return

        def find(self, key: str | None) -> ApiKey:
            return ApiKey("lab", (), bytes_per_minute=1000)

    async def ask(num_read: int) -> None:
        sent = [{"type": "http.request", "body": b"1234", "more_body": n < 4} for n in range(5)]

        async def app(scope: object, receive: Callable[[], object], send: object) -> None:
            for _ in range(num_read):
                await receive()  # type: ignore[misc]

        async def receive() -> dict[str, object]:
            return sent.pop(0)

        guard = GuardMiddleware(app, OneKey(), Counting(MemoryBudgetStore()))  # type: ignore[arg-type]
        await guard({"type": "http", "method": "POST", "path": "/embed", "headers": []}, receive, None)  # type: ignore[arg-type]

    asyncio.run(ask(5))
    assert charged == [12, 8]
    charged.clear()
    asyncio.run(ask(4))
    assert charged == [12, 4], "the received bytes of an abandoned body are charged as well"
