"""The access log: one line per request, with what operators ask for and nothing that is secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.app.telemetry.logging import JsonFormatter, TextFormatter
from scpalm.model.release import release
from tests.app.auth.test_keys import entry, write
from tests.app.fakes import Client, FakeSession

BODY = {"genes": [f"GENE{n}" for n in range(12)], "indptr": [0, 2, 4], "indices": [0, 1, 2, 3], "data": [1, 2, 3, 4]}
KEY = {"Authorization": "Bearer very-secret"}


@pytest.fixture(scope="module")
def guarded(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("guarded")
    path = write(folder / "keys.json", entry("the lab", "very-secret"), entry("narrow", "second", paths=["/jobs"]))
    settings = Settings(bundle=bundle_dir, spool_dir=folder, api_keys_file=path, parser_processes=1)
    with Client(create_app(settings, lambda *_: FakeSession())) as client:
        yield client.wait_until_loaded()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="scpalm.access"):
        yield caplog


def last(log: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The last line of the access log."""
    return [record for record in log.records if record.name == "scpalm.access"][-1]


def fields(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    found: dict[str, Any] = vars(last(log))["fields"]
    return found


def test_a_line_says_who_asked_what_and_how_long_each_stage_took(
    guarded: Client, log: pytest.LogCaptureFixture
) -> None:
    answer = guarded.post("/embed?output=f", json=BODY, headers={**KEY, "X-Request-Id": "run-1"})
    assert answer.status_code == 200
    found = fields(log)
    identity = guarded.service.model().identity
    assert found["request_id"] == "run-1" and found["key"] == "the lab"
    assert (found["method"], found["path"], found["route"], found["status"]) == ("POST", "/embed", "/embed", 200)
    assert (found["model"], found["version"], found["checksum"]) == (*identity[:2], identity[2][:12])
    assert found["release"] == release() and found["rows"] == 2
    assert found["bytes_in"] == len(answer.request.content) and found["bytes_out"] == len(answer.content)
    stages = {part.partition(";dur=")[0]: float(part.partition("=")[2]) for part in
              answer.headers["server-timing"].split(", ")}  # fmt: skip
    assert {name: found[f"{name}_ms"] for name in stages} == stages and len(stages) == 4
    for formatter in (TextFormatter(), JsonFormatter()):
        text = formatter.format(last(log))
        assert "run-1" in text and "the lab" in text and "very-secret" not in text


def test_refused_requests_are_named_too(guarded: Client, log: pytest.LogCaptureFixture) -> None:
    guarded.get("/models", headers={"X-API-Key": "second"})
    assert fields(log)["key"] == "narrow" and fields(log)["status"] == 403
    guarded.get("/models", headers={"X-API-Key": "unknown-secret"})
    assert "key" not in fields(log) and fields(log)["status"] == 401
    assert "unknown-secret" not in str(fields(log))
    guarded.post("/embed", json={**BODY, "data": [-1, 2, 3, 4]}, headers=KEY)
    assert fields(log)["status"] == 422 and fields(log)["model"] == "fake"


def test_jobs_and_their_results_are_named(guarded: Client, log: pytest.LogCaptureFixture) -> None:
    job = guarded.post("/embed", json=BODY, headers={**KEY, "Prefer": "respond-async"}).headers["location"]
    assert fields(log)["status"] == 202 and fields(log)["rows"] == 2
    guarded.get(f"{job}/events", headers=KEY)
    assert fields(log)["route"] == "/jobs/{job_id}/events"
    assert guarded.get(f"{job}/result", headers=KEY).status_code == 200
    found = fields(log)
    assert found["route"] == "/jobs/{job_id}/result" and found["rows"] == 2 and found["model"] == "fake"
    assert found["read_ms"] >= 0


def test_tensors_are_timed_like_other_cells(guarded: Client, log: pytest.LogCaptureFixture) -> None:
    from tests.app.http.middleware.test_guard import infer_body

    answer = guarded.post("/v2/models/fake/infer", json=infer_body("embedding"), headers=KEY)
    assert answer.status_code == 200 and "parse" in answer.headers["server-timing"]
    assert fields(log)["rows"] == 2 and fields(log)["inference_ms"] >= 0
