"""Several models: chosen by name, replaced without downtime, refused with a reason."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from scpalm.app.main import create_app
from scpalm.app.settings import Settings
from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.release import release
from scpalm.model.sessions.session import Encoded
from tests.app.fakes import Client, FakeSession, write_bundle

BODY = {"genes": [f"GENE{n}" for n in range(30)], "indptr": [0, 1], "indices": [5], "data": [3]}
ASYNC = {"prefer": "respond-async"}


class _Session(FakeSession):
    """Its first value identifies the model and its version."""

    def __init__(self, mark: float) -> None:
        super().__init__()
        self.mark = mark

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        encoded = super().encode(rows, tokens=tokens)
        return replace(encoded, embedding=np.full_like(encoded.embedding, self.mark))


class Served:
    """A service with a folder of models, and the sessions that it opened, by name and version."""

    def __init__(self, folder: Path) -> None:
        self.default, self.more = write_bundle(folder / "default", "one", "1"), folder / "more"
        self.more.mkdir()
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.sessions: dict[str, _Session] = {}
        # Name and version of the model by the first value of its results.
        self.opened: dict[float, str] = {}
        self.broken: set[str] = set()

    def app(self, **settings: object) -> FastAPI:
        chosen = {"bundle": self.default, "models_dir": self.more, "reload_seconds": 0.1, **settings}
        more = {"batch_cells": 8, "parser_processes": 1, "spool_dir": self.spool}
        return create_app(Settings(**more, **chosen), self._open)  # type: ignore[arg-type]

    def _open(self, bundle: Bundle, settings: Settings) -> _Session:
        name = f"{bundle.name} {bundle.version}"
        if name in self.broken:
            raise ValueError("the graph does not fit")
        session = self.sessions[name] = _Session(float(len(self.opened)))
        self.opened[session.mark] = name
        return session


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    write_bundle(served.more / "two", "two", "1")
    with Client(served.app()) as client:
        yield client.wait_until_loaded()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "the condition never became true"
        time.sleep(0.02)


def versions(client: Client) -> dict[str, str]:
    return {model["name"]: model["version"] for model in client.get("/models").json()["models"]}


def mark_of(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    return float(answer.json()["values"][0][0])


def test_models_are_chosen_by_name(client: Client, served: Served) -> None:
    listed = client.get("/models").json()
    assert [(m["name"], m["default"]) for m in listed["models"]] == [("one", True), ("two", False)]
    assert "refused" not in listed
    for path, name in (("/embed", "one"), ("/embed?model=one", "one"), ("/pathways?also=embed&model=two", "two")):
        answer = client.post(path, json=BODY)
        assert answer.status_code == 200 and answer.json()["model"] == {"name": name, "version": "1"}
    marks = {name: mark_of(client.post(f"/embed?model={name}", json=BODY)) for name in ("one", "two")}
    assert marks == {name: served.sessions[f"{name} 1"].mark for name in marks}
    assert client.get("/models/two").json()["name"] == "two"
    assert client.get("/models/two/genes").status_code == 200
    assert client.get("/v2/models/two").json()["versions"] == ["1"]
    assert client.get("/v2/models/two/versions/1/ready").json() == {"name": "two", "ready": True}
    ready = client.get("/health/ready").json()["models"]
    assert [model["name"] for model in ready] == ["one", "two"] and all(len(m["checksum"]) == 64 for m in ready)


@pytest.mark.parametrize("headers", [{}, ASYNC])
@pytest.mark.parametrize("path", ["/embed", "/impute", "/pathways", "/ic50"])
def test_an_unknown_name_is_404_and_lists_the_others(client: Client, path: str, headers: dict[str, str]) -> None:
    answer = client.post(f"{path}?model=three", json=BODY, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:scpalm:problem:unknown-model"
    assert answer.json()["field"] == "model" and "one 1, two 1" in answer.json()["detail"]


def test_memory_of_a_replaced_model_is_returned(
    client: Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[bool] = []
    monkeypatch.setattr("scpalm.app.serving.models._TRIM_SECONDS", 0.0)
    monkeypatch.setattr("scpalm.app.serving.models.return_freed_memory", lambda: returned.append(True))
    write_bundle(served.more / "two", "two", "2")
    until(lambda: bool(returned))
    assert versions(client)["two"] == "2" and not client.service.models._retired


def test_a_model_is_replaced_without_dropping_requests(client: Client, served: Served) -> None:
    old = served.sessions["two 1"]
    old.gate.clear()
    waiting = [client.submit(client.http.post("/embed?model=two", json=BODY)) for _ in range(3)]
    assert old.running.wait(20)
    write_bundle(served.more / "two", "two", "2")
    until(lambda: versions(client)["two"] == "2")
    # The old model still has work in flight, while the new one already answers.
    assert mark_of(client.post("/embed?model=two", json=BODY)) == served.sessions["two 2"].mark
    assert not any(answer.done() for answer in waiting)
    old.gate.set()
    for answer in waiting:
        done = answer.result(20)
        assert mark_of(done) == old.mark and done.json()["model"]["version"] == "1"
    until(lambda: not client.service.models._retired)
    info = client.get("/metrics").text
    checksum = client.service.models.get("two").identity[2][:12]
    assert f'scpalm_model_info{{checksum="{checksum}",device="cpu",name="two",runtime="fake",version="2"}} 1.0' in info
    assert 'name="two",runtime="fake",version="1"' not in info
    assert f'scpalm_build_info{{release="{release()}"}} 1.0' in info
    until(lambda: len(list(served.spool.glob("*/scpalm-model-*"))) == 2)


def test_requests_succeed_while_a_model_is_swapped_repeatedly(client: Client, served: Served) -> None:
    # Four requests are always in flight; without a limit, a slow machine would fill the queue, which is 429.
    done = []
    for version in range(2, 6):
        write_bundle(served.default, "one", str(version))
        ends = time.monotonic() + 20
        while versions(client)["one"] != str(version):
            sent = [client.submit(client.http.post("/embed", json=BODY)) for _ in range(4)]
            done += [answer.result(20) for answer in sent]
            assert time.monotonic() < ends
    assert {answer.status_code for answer in done} == {200}
    marks = {f"one {answer.json()['model']['version']}": mark_of(answer) for answer in done}
    assert len(marks) >= 2
    assert marks == {name: served.sessions[name].mark for name in marks}


def test_a_bundle_is_switched_and_rolled_back_by_its_link_under_load(served: Served, tmp_path: Path) -> None:
    """As in docs/operate/upgrade.md. No request fails, and none mixes the values of two models."""
    for version in ("1", "2"):
        write_bundle(tmp_path / f"one-{version}", "one", version)
    current = tmp_path / "current"
    current.symlink_to("one-1")
    # More cells than fit in one batch, so a request is in several.
    many = BODY | {"indptr": list(range(31)), "indices": [5] * 30, "data": [3] * 30}
    answers = []
    with Client(served.app(bundle=current, models_dir=None)) as client:
        client.wait_until_loaded()
        for version in ("2", "1", "2"):
            (tmp_path / "next").symlink_to(f"one-{version}")
            (tmp_path / "next").replace(current)
            ends = time.monotonic() + 20
            while versions(client)["one"] != version:
                answers.append(client.submit(client.http.post("/embed", json=many)))
                time.sleep(0.01)
                assert time.monotonic() < ends
        done = [answer.result(20) for answer in answers]
    seen = set()
    for answer in done:
        marks = {value for row in answer.json()["values"] for value in row}
        assert answer.status_code == 200 and len(marks) == 1, "one model computed all cells"
        assert served.opened[marks.pop()] == f"one {answer.json()['model']['version']}"
        seen.add(answer.json()["model"]["version"])
    assert seen == {"1", "2"}


@pytest.mark.parametrize("fault", ["checksum", "missing", "manifest", "session", "name"])
def test_a_damaged_model_is_refused_and_the_old_one_keeps_serving(client: Client, served: Served, fault: str) -> None:
    folder = served.more / "two"
    if fault == "session":
        served.broken.add("two 2")
    write_bundle(folder, "one" if fault == "name" else "two", "2")
    if fault == "checksum":
        (folder / "genes.parquet").write_bytes(b"cut")
    elif fault == "missing":
        (folder / "genes.parquet").unlink()
    elif fault == "manifest":
        (folder / "manifest.json").write_text("{")
    until(lambda: "refused" in client.get("/models").json())
    (refused,) = client.get("/models").json()["refused"]
    words = {
        "checksum": "checksum", "missing": "missing", "manifest": "manifest", "session": "does not fit", "name": "'one'"
    }  # fmt: skip
    assert refused["folder"] == "two" and words[fault] in refused["reason"]
    assert str(served.spool) not in refused["reason"], "the reason must not show the path of the private copy"
    assert versions(client) == {"one": "1", "two": "1"}
    assert mark_of(client.post("/embed?model=two", json=BODY)) == served.sessions["two 1"].mark
    assert client.get("/health/ready").status_code == 200
    served.broken.clear()
    write_bundle(folder, "two", "3")
    until(lambda: versions(client)["two"] == "3")
    assert "refused" not in client.get("/models").json()


def test_a_model_whose_folder_is_removed_is_closed_and_a_new_one_is_opened(client: Client, served: Served) -> None:
    shutil.rmtree(served.more / "two")
    until(lambda: versions(client) == {"one": "1"})
    assert client.post("/embed?model=two", json=BODY).status_code == 404
    write_bundle(served.more / "late", "late", "1")
    until(lambda: "late" in versions(client))
    assert mark_of(client.post("/embed?model=late", json=BODY)) == served.sessions["late 1"].mark


def test_a_default_model_whose_folder_is_removed_keeps_serving(client: Client, served: Served) -> None:
    shutil.rmtree(served.default)
    until(lambda: "refused" in client.get("/models").json())
    assert "manifest.json is missing" in client.get("/models").json()["refused"][0]["reason"]
    assert mark_of(client.post("/embed", json=BODY)) == served.sessions["one 1"].mark


def test_the_default_may_be_in_the_models_folder(served: Served) -> None:
    write_bundle(served.more / "one", "one", "1")
    write_bundle(served.more / "two", "two", "1")
    with Client(served.app(bundle=served.more / ".." / "more" / "one")) as client:
        client.wait_until_loaded()
        assert client.get("/models").json().keys() == {"models"} and versions(client) == {"one": "1", "two": "1"}


def test_a_damaged_model_at_startup_does_not_affect_the_others(served: Served) -> None:
    folder = write_bundle(served.more / "two", "two", "1")
    (folder / "genes.parquet").write_bytes(b"cut")
    with Client(served.app()) as client:
        client.wait_until_loaded()
        assert client.get("/health/ready").status_code == 200
        assert client.get("/models").json()["refused"][0]["folder"] == "two"


def test_a_job_runs_on_the_model_it_was_sent_to(client: Client, served: Served) -> None:
    old = served.sessions["one 1"]
    old.gate.clear()
    sent = [
        client.post("/embed", json={**BODY, "obs_names": [name]}, headers=ASYNC).headers["location"] for name in "ab"
    ]
    write_bundle(served.default, "one", "2")
    until(lambda: versions(client)["one"] == "2")
    old.gate.set()
    for location in sent:
        until(lambda location=location: client.get(location).json()["state"] == "succeeded")  # type: ignore[misc]
        result = client.get(f"{location}/result")
        assert mark_of(result) == old.mark and result.json()["model"]["version"] == "1"
    until(lambda: not client.service.models._retired)
    assert mark_of(client.get(f"{sent[0]}/result")) == old.mark, "fetching a result needs no model"


def test_without_polling_models_change_only_on_a_signal(served: Served) -> None:
    with Client(served.app(reload_seconds=0)) as client:
        client.wait_until_loaded()
        write_bundle(served.default, "one", "2")
        time.sleep(0.5)
        assert versions(client) == {"one": "1"}
        client.service.models.poll_now()
        client.run(_pass())
        until(lambda: versions(client) == {"one": "2"})


async def _pass() -> None:
    """Wait for one turn of the loop, so that it sees events that were set from outside."""


def test_no_copies_are_left_when_the_service_ends(served: Served) -> None:
    with Client(served.app()) as client:
        client.wait_until_loaded()
        assert len(list(served.spool.glob("*/scpalm-model-*"))) == 1
    assert list(served.spool.glob("*/scpalm-model-*")) == []
