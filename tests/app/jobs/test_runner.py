"""Running jobs while something else fails: they wait, health checks say so, and nothing is lost or left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI

from scpalm.app.jobs.folders import LocalJobFolders, SpoolJobFolders
from scpalm.app.jobs.home import LEDGER_FILE, JobHome
from scpalm.app.jobs.housekeeping import Housekeeping
from scpalm.app.jobs.ledger.ledger import Submission
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.storage.spool import Spool
from tests.app.fakes import Client, FakeSession
from tests.app.http.routes.test_jobs import ASYNC, accepted, body_of, wait
from tests.loop_lag import LoopLag

WatchLoop = Callable[[asyncio.AbstractEventLoop], LoopLag]


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the condition never became true"
        time.sleep(0.02)


def fault(client: Client) -> str:
    """Why the service is not ready; "" if it is."""
    answer = client.get("/health/ready")
    return "" if answer.status_code == 200 else str(answer.json()["detail"])


def fill(disk: Path) -> Path:
    """Leave no room on a disk. Remove the file that is returned to make room again."""
    found = os.statvfs(disk)
    with contextlib.suppress(OSError):  # the service wrote meanwhile, and the disk is as full as it can be
        (disk / "others").write_bytes(bytes(found.f_bavail * found.f_frsize))
    return disk / "others"


def folders(results: Path) -> list[str]:
    return sorted(f"/jobs/{path.name}" for path in results.iterdir() if path.is_dir())


def test_a_locked_ledger_delays_jobs_and_nothing_else(
    own_client: Client, session: FakeSession, tmp_path: Path, watch_loop: WatchLoop
) -> None:
    client = own_client
    session.gate.clear()
    running = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    queued = accepted(client.post("/embed", json=body_of(21), headers=ASYNC))
    assert session.running.wait(20)
    backup = sqlite3.connect(tmp_path / "scpalm-jobs" / LEDGER_FILE, isolation_level=None)
    backup.execute("BEGIN EXCLUSIVE")
    watch_loop(client.loop)
    session.gate.set()
    until(lambda: "jobs: The job ledger" in fault(client) and "locked" in fault(client))
    assert client.get(running).json()["state"] == "running", "the ledger can be read"
    assert len(client.get("/jobs").json()["jobs"]) == 2
    refused = client.post("/embed", json=body_of(22), headers=ASYNC)
    assert refused.status_code == 503 and "locked" in refused.json()["detail"] and refused.headers["retry-after"]
    assert client.post("/embed", json=body_of(3)).status_code == 200
    backup.execute("ROLLBACK")
    backup.close()
    for location in (running, queued):
        assert wait(client, location)["state"] == "succeeded"
    until(lambda: not fault(client))
    assert folders(tmp_path / "scpalm-jobs") == sorted([running, queued]), "the refused job has left nothing"


@pytest.mark.parametrize("bodies", ["small", "large"])
def test_a_full_disk_delays_jobs_and_refuses_new_ones(
    make_app: Callable[..., FastAPI], session: FakeSession, small_disk: Callable[[int], Path], bodies: str
) -> None:
    disk = small_disk(8 << 20)
    with Client(make_app(results_dir=disk)) as client:
        client.wait_until_loaded()
        session.gate.clear()
        running = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
        queued = accepted(client.post("/embed", json=body_of(21), headers=ASYNC))
        assert session.running.wait(20)
        others = fill(disk)
        session.gate.set()
        until(lambda: "jobs: The disk" in fault(client))
        for seed in range(3):
            refused = client.post("/embed", json=body_of(4 if bodies == "small" else 4000, seed), headers=ASYNC)
            assert refused.status_code == 507 and refused.json()["type"].endswith("storage-full"), refused.text
            assert "SCPALM_RESULTS_DIR" in refused.json()["detail"]
        assert folders(disk) == sorted([running, queued])
        others.unlink()
        for location in (running, queued):
            state = wait(client, location)
            assert state["state"] == "succeeded", state
            assert len(client.get(f"{location}/result").json()["values"]) == state["rows"]
        until(lambda: not fault(client))
        partial = [path for path in disk.rglob("*") if path.suffix == ".partial"]
        assert not partial and folders(disk) == sorted([running, queued])


def test_a_ledger_that_fails_for_another_reason_does_not_end_the_runner(
    own_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, ledger = own_client, own_client.service.jobs.ledger

    async def broken(models: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "take", broken)
        until(lambda: "jobs: database disk image is malformed" in fault(client))
        location = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
        assert 'scpalm_background_failures_total{task="jobs"}' in client.get("/metrics").text
    assert wait(client, location)["state"] == "succeeded"
    assert not fault(client)


def test_a_watch_over_models_that_fails_goes_on(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(make_app(reload_seconds=0.05)) as client:
        client.wait_until_loaded()
        models = client.service.models

        def broken() -> list[Path]:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(models, "_paths", broken)
            until(lambda: "models: [Errno 5]" in fault(client))
        until(lambda: not fault(client))


def test_an_unexpected_end_of_a_job_puts_it_back(own_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the ledger takes it for running until the next start."""
    client, ledger = own_client, own_client.service.jobs.ledger
    real_end, calls = ledger.end, 0

    async def fails_once(*arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise sqlite3.DatabaseError("malformed")
        return await real_end(*arguments)

    monkeypatch.setattr(ledger, "end", fails_once)
    location = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    assert wait(client, location)["state"] == "succeeded"
    assert calls >= 3


def test_a_ledger_that_is_locked_at_the_start_is_waited_for(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    with Client(make_app(results_dir=tmp_path)) as client:
        client.wait_until_loaded()
    backup = sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)
    backup.execute("BEGIN EXCLUSIVE")
    with Client(make_app(results_dir=tmp_path)) as client:
        until(lambda: "locked" in fault(client))
        backup.execute("ROLLBACK")
        backup.close()
        until(lambda: not fault(client))


def test_files_that_no_job_owns_are_swept_at_the_start(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    results = tmp_path / "results"
    for _ in range(3):
        LocalJobFolders(results).of(uuid4().hex).write("body", b"cells of a process that was killed")
    (results / "somebody-else").mkdir()
    with Client(make_app(results_dir=results)) as client:
        client.wait_until_loaded()
        until(lambda: folders(results) == ["/jobs/somebody-else"])
        location = accepted(client.post("/embed", json=body_of(3), headers=ASYNC))
        wait(client, location)
        client.run(client.service.jobs.housekeeping.sweep())
        assert folders(results) == sorted([location, "/jobs/somebody-else"])


def test_an_expired_job_is_kept_until_its_files_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("unreachable")

    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / LEDGER_FILE)
        stored = SpoolJobFolders(Spool(f"memory://{tmp_path}"))
        name = uuid4().hex
        stored.of(name).write("body", b"cells")
        await ledger.add(name, Submission("", "print", "request"), "{}", "m")
        await ledger.cancel(name)
        housekeeping = Housekeeping(JobHome(ledger, stored, 1.0, 0.0), -60.0, ())
        with monkeypatch.context() as patch:
            patch.setattr("fsspec.implementations.memory.MemoryFileSystem.rm", away)
            await housekeeping.expire()
        assert await ledger.get(name) is not None and stored.of(name).has("body")
        await housekeeping.expire()
        assert await ledger.get(name) is None and not stored.of(name).has("body")
        await ledger.close()

    asyncio.run(scenario())
