from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from scpalm.app.execution.worker import Worker
from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import Speed
from tests.app.fakes import Client, FakeSession

BODY = {"genes": [f"GENE{n}" for n in range(30)], "indptr": [0, 1], "indices": [5], "data": [3]}


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "the condition never became true"
        time.sleep(0.01)


def test_live_but_not_ready_while_loading(bundle_dir: Path, tmp_path: Path) -> None:
    may_load = threading.Event()

    def open_session(bundle: Bundle, settings: Settings) -> FakeSession:
        may_load.wait(20)
        return FakeSession()

    settings = Settings(bundle=bundle_dir, parser_processes=1, spool_dir=tmp_path)
    with Client(create_app(settings, open_session)) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        for path in ("/health/ready", "/models", "/models/fake"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
        assert client.post("/embed", json=BODY).status_code == 503
        may_load.set()
        client.wait_until_loaded()
        ready = client.get("/health/ready").json()
        (model,) = ready.pop("models")
        assert ready == {"status": "ready"}
        assert (model["name"], model["version"], model["device"]) == ("fake", "0.1", "cpu")


class _ColdSession(FakeSession):
    def warm_up(self) -> Speed:
        raise RuntimeError("no kernel for this shape")


@pytest.mark.parametrize("fault", ["warm-up", "bundle"])
def test_a_model_that_fails_to_load_is_never_ready(bundle_dir: Path, tmp_path: Path, fault: str) -> None:
    folder = bundle_dir if fault == "warm-up" else tmp_path
    settings = Settings(bundle=folder, parser_processes=1, spool_dir=tmp_path)
    with Client(create_app(settings, lambda bundle, settings: _ColdSession())) as client:
        client.wait_until_loaded()
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert ("no kernel" if fault == "warm-up" else "manifest.json") in answer.json()["detail"]
        assert client.get("/health/live").status_code == 200


def test_a_dead_worker_fails_liveness_and_is_restarted(
    own_client: Client, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_restart = threading.Event()
    start = Worker.start

    def start_later(self: Worker, *, resume: bool = False) -> None:
        if may_restart.is_set():
            start(self, resume=resume)
        else:
            self._failed = True  # the replacement dies too, until the test lets it run

    monkeypatch.setattr(Worker, "start", start_later)
    session.deadly = 5
    waiting = own_client.submit(own_client.http.post("/embed", json=BODY))
    until(lambda: own_client.get("/health/live").status_code == 503)
    session.deadly = -1
    may_restart.set()
    assert waiting.result(20).status_code == 200
    assert own_client.get("/health/live").status_code == 200


def test_a_device_that_hangs_fails_liveness(make_app: Callable[..., FastAPI], session: FakeSession) -> None:
    with Client(make_app(stall_seconds=1.0)) as client:
        client.wait_until_loaded()
        session.gate.clear()
        waiting = client.submit(client.http.post("/embed", json=BODY))
        until(lambda: client.get("/health/live").status_code == 503)
        session.gate.set()
        assert waiting.result(20).status_code == 200
        until(lambda: client.get("/health/live").status_code == 200)


def test_metrics_are_valid_and_count_what_happens(client: Client) -> None:
    before = _samples(client)
    assert client.post("/embed", json=BODY).status_code == 200
    client.post("/embed", content=b"", headers={"content-type": "text/csv"})
    client.get("/no/such/path")
    after = _samples(client)
    grown = {key for key in after if after[key] > before.get(key, 0.0)}
    new = {labels for name, labels in set(after) - set(before) if name == "scpalm_request_duration_seconds_count"}
    assert new <= {("/embed", "415"), ("other", "404"), ("/metrics", "200")}, "label sets are made on first use"
    expected = {
        ("scpalm_request_duration_seconds_count", ("/embed", "200")),
        ("scpalm_request_duration_seconds_count", ("/embed", "415")),
        ("scpalm_request_duration_seconds_count", ("other", "404")),
        ("scpalm_parse_duration_seconds_count", ("json",)),
        ("scpalm_queue_duration_seconds_count", ("online",)),
        ("scpalm_inference_duration_seconds_count", ("cpu", "embed")),
        ("scpalm_batch_rows_count", ()),
        ("scpalm_batch_fill_ratio_count", ()),
        ("scpalm_batch_requests_count", ()),
        ("scpalm_rows_total", ("online", "embed")),
        ("scpalm_rejected_total", ("media_type",)),
        ("scpalm_device_busy_seconds_total", ()),
        ("scpalm_genes_matched_ratio_count", ()),
    }
    assert expected <= grown
    names = {name for name, _ in after}
    assert {"scpalm_queue_rows", "scpalm_queue_oldest_seconds", "scpalm_model_info", "scpalm_dropped_total"} <= names


def _samples(client: Client) -> dict[tuple[str, tuple[str, ...]], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_queue_is_read_when_scraped(own_client: Client, session: FakeSession) -> None:
    session.gate.clear()
    waiting = own_client.submit(own_client.http.post("/embed", json=BODY))
    assert session.running.wait(20)
    assert _samples(own_client)["scpalm_queue_rows", ("online",)] == 1
    assert _samples(own_client)["scpalm_queue_oldest_seconds", ("online",)] > 0
    session.gate.set()
    waiting.result(20)
    assert _samples(own_client)["scpalm_queue_rows", ("online",)] == 0
