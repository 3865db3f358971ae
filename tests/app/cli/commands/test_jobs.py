"""``scpalm jobs`` with both kinds of ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scpalm.app.cli.main import main
from scpalm.app.jobs.ledger.ledger import MAX_DEATHS, Ledger, Submission
from scpalm.app.jobs.ledger.redis import RedisLedger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.manifest import Manifest
from scpalm.model.spec import RequestSpec
from tests.redis_server import RedisServer, require_redis

SPEC = RequestSpec(("embed",), format="application/json")
MANIFEST = Manifest(SPEC, "application/json", "", ("mini", "1.0", "sum"))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["sqlite", "redis"])
def open_ledger(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Ledger]]:
    monkeypatch.delenv("SCPALM_REDIS_URL", raising=False)
    if request.param == "sqlite":
        monkeypatch.setenv("SCPALM_RESULTS_DIR", str(tmp_path))
        yield lambda: SqliteLedger(tmp_path / "jobs.sqlite")
        return
    require_redis()
    redis = RedisServer(tmp_path / "data").start()
    monkeypatch.setenv("SCPALM_REDIS_URL", redis.url)
    yield lambda: RedisLedger(redis.url, lease_seconds=0.05)
    redis.stop()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def go(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["scpalm", "jobs", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return go


def prepare(open_ledger: Callable[[], Ledger]) -> None:
    """Add a queued job, a failed one, and one that killed every process."""

    async def go() -> None:
        ledger = open_ledger()
        for name in ("dead", "failed", "waits"):
            await ledger.add(name, Submission("", name, name), MANIFEST.as_json(), "sum")
            await asyncio.sleep(0.002)
        for _ in range(MAX_DEATHS):
            job = await ledger.take(("sum",))
            assert job is not None and job.id == "dead"
            if isinstance(ledger, SqliteLedger):
                ledger.requeue_running()
            await asyncio.sleep(0.07)
        job = await ledger.take(("sum",))
        assert job is not None and job.id == "failed"
        await ledger.set_rows(job, 9)
        await ledger.commit_chunk(job, 0, 4)
        await ledger.end(job, "failed", "a cell is empty")
        await ledger.close()

    asyncio.run(go())


def test_jobs_are_listed_replayed_and_cancelled(open_ledger: Callable[[], Ledger], run: Run) -> None:
    prepare(open_ledger)
    status, out, _ = run()
    heads, *rows = [line.split(maxsplit=7) for line in out.splitlines()]
    assert status == 0 and heads[:2] == ["job", "state"]
    assert [row[:2] for row in rows] == [["waits", "queued"], ["failed", "failed"], ["dead", "failed"]]
    assert "mini 1.0" in out and "4/9" in out and "a cell is empty" in out
    status, out, _ = run("--dead")
    assert [line.split()[0] for line in out.splitlines()] == ["job", "dead"] and "died" in out
    assert run("--replay", "dead")[0] == 0 and "dead" not in run("--dead")[1]
    status, _, err = run("--replay", "waits")
    assert status == 1 and err.count("\n") == 1 and "queued" in err
    assert run("--cancel", "waits")[0] == 0
    assert run("--cancel", "waits")[0] == 1
    status, _, err = run("--cancel", "none")
    assert status == 1 and err.count("\n") == 1 and "no job none" in err
    shown = dict(line.split(maxsplit=1) for line in run("--show", "failed")[1].splitlines())
    assert (shown["state"], shown["error"], shown["tasks"]) == ("failed", "a cell is empty", '["embed"]')
    assert [job["id"] for job in json.loads(run("--json")[1])] == ["waits", "failed", "dead"]
    status, _, err = run("--show", "none")
    assert status == 1 and err.count("\n") == 1 and "no job or dead request none" in err
    assert {line.split()[0]: line.split()[1] for line in run()[1].splitlines()[1:]} == {
        "waits": "cancelled",
        "failed": "failed",
        "dead": "queued",
    }


def test_wrong_usage_and_a_missing_ledger_are_errors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCPALM_REDIS_URL", raising=False)
    monkeypatch.setenv("SCPALM_RESULTS_DIR", str(tmp_path))
    status, _, err = run()
    assert status == 1 and err.count("\n") == 1 and "SCPALM_RESULTS_DIR" in err
    assert list(tmp_path.iterdir()) == [], "listing must not create a ledger"
    assert run("--dead", "--cancel", "x")[0] == 2
    monkeypatch.setenv("SCPALM_REDIS_URL", "redis://127.0.0.1:9/0")
    status, _, err = run()
    assert status == 1 and err.count("\n") == 1 and "Redis" in err


def test_dead_requests_are_listed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_redis()
    redis = RedisServer(tmp_path / "data").start()
    try:
        monkeypatch.setenv("SCPALM_REDIS_URL", redis.url)
        letter = {"lane": "online", "deliveries": 3, "id": "w", "rows": 7, "bytes": 1, "to": "x", "payload": b"\0"}
        with redis.client() as client:
            client.xadd("scpalm:{mini-1.0-abc}:dead", letter)
        status, out, _ = run("--dead")
        assert status == 0 and out.splitlines()[-1].split()[:5] == ["w", "mini-1.0-abc", "online", "7", "3"]
        shown = json.loads(run("--dead", "--show", "w", "--json")[1])
        assert (shown["kind"], shown["rows"], shown["bytes"], shown["deliveries"]) == ("request", 7, 1, 3)
        assert "payload" not in shown
        assert json.loads(run("--dead", "--json")[1]) == [shown]
    finally:
        redis.stop()
