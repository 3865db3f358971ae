"""Ledgers that earlier releases wrote are read and continue; an earlier release refuses the ledger of this one.

The files in ``earlier`` were written by the releases themselves: a finished job, one that was interrupted after its
first chunk, a failed one and one that waits. They are kept as text, with the times moved to November 2023.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from scpalm.app.jobs.ledger import redis_scripts, sqlite_database
from scpalm.app.jobs.ledger.ledger import Job, Ledger, LedgerVersionError, Submission
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.manifest import Manifest
from scpalm.model.spec import RequestSpec
from tests.app.jobs.ledger.ledgers import in_redis
from tests.redis_server import RedisServer, needs_redis

EARLIER = Path(__file__).parent / "earlier"
MODEL = "c" * 64
SQLITE = sorted(EARLIER.glob("sqlite_*.sql"))
REDIS = sorted(EARLIER.glob("redis_*.jsonl"))


def written_by(release: Path, folder: Path) -> Path:
    """The SQLite file of an earlier release."""
    path = folder / "jobs.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(release.read_text())
    database.close()
    return path


def restore(release: Path, server: RedisServer) -> None:
    """Put the keys of an earlier release into Redis."""
    with server.client() as client:
        client.flushall()
        for line in release.read_text().splitlines():
            client.execute_command(*json.loads(line))


def spec_of(job: Job) -> RequestSpec:
    return Manifest.from_json(job.manifest).spec


async def check_contents(ledger: Ledger) -> None:
    """Every job of the earlier release has its state, its request and its key."""
    jobs = {job.id: job for job in await ledger.latest()}
    states = {"ended": "succeeded", "interrupted": "running", "failed": "failed", "waiting": "queued"}
    assert {name: job.state for name, job in jobs.items()} == states
    tasks = {"ended": "embed", "interrupted": "impute", "failed": "embed", "waiting": "pathways"}
    assert {name: spec_of(job).tasks for name, job in jobs.items()} == {name: (task,) for name, task in tasks.items()}
    assert spec_of(jobs["interrupted"]).options["genes"] == ["CD3D", "NKG7"]
    assert (jobs["ended"].rows, jobs["ended"].rows_done) == (1000, 1000)
    assert jobs["failed"].error == "The device is on fire."
    assert await ledger.chunks(jobs["ended"]) == {0, 1}
    again = Submission("lab", "fingerprint of ended", "any", "key of ended")
    assert jobs["ended"].owner == "lab"
    assert (found := await ledger.find(again)) is not None and found.id == "ended", "a retry gets the same job"


async def go_on(ledger: Ledger) -> None:
    """Both open jobs run to their end, and the interrupted one continues after its first chunk."""
    taken: dict[str, Job] = {}
    async with asyncio.timeout(5):
        while len(taken) < 2:
            if (job := await ledger.take((MODEL,))) is not None:
                taken[job.id] = job
                if job.id == "interrupted":
                    assert (job.attempt, job.rows_done, await ledger.chunks(job)) == (2, 500, {0})
                    assert await ledger.commit_chunk(job, 1, 500)
                assert await ledger.end(job, "succeeded")
            await asyncio.sleep(0)
    assert taken.keys() == {"interrupted", "waiting"}
    assert await ledger.counts() == {"queued": 0, "running": 0, "succeeded": 3, "failed": 1, "cancelled": 0}


@pytest.mark.parametrize("release", SQLITE, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_is_migrated(release: Path, tmp_path: Path) -> None:
    path = written_by(release, tmp_path)

    async def scenario() -> None:
        for _ in range(2):  # also when it is opened again
            ledger = SqliteLedger(path)
            await check_contents(ledger)
            await ledger.close()
        ledger = SqliteLedger(path)
        assert ledger.requeue_running() == 1
        await go_on(ledger)
        await ledger.close()

    asyncio.run(scenario())


@needs_redis
@pytest.mark.parametrize("release", REDIS, ids=lambda path: path.stem)
def test_a_redis_ledger_of_an_earlier_release_is_migrated(release: Path, redis_server: RedisServer) -> None:
    restore(release, redis_server)

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            await check_contents(ledger)
            await go_on(ledger)

    asyncio.run(scenario())


def test_an_earlier_release_refuses_a_migrated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written_by(SQLITE[0], tmp_path)
    asyncio.run(SqliteLedger(path).close())
    before = path.read_bytes()
    with monkeypatch.context() as earlier:
        earlier.setattr(sqlite_database, "VERSION", 1)
        with pytest.raises(LedgerVersionError, match=r"version 2; this release reads up to 1.*Update scpalm"):
            SqliteLedger(path)
    assert path.read_bytes() == before, "it was not changed"
    asyncio.run(SqliteLedger(path).close())


@needs_redis
def test_an_earlier_release_refuses_a_migrated_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(REDIS[0], redis_server)

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            await ledger.counts()
        before = set(redis_server.client().keys("*"))
        with monkeypatch.context() as earlier:
            earlier.setattr(redis_scripts, "VERSION", 1)
            async with in_redis(redis_server) as ledger:
                with pytest.raises(LedgerVersionError, match=r"version '2'; this release reads up to 1.*Update all"):
                    await ledger.take((MODEL,))
        assert set(redis_server.client().keys("*")) == before, "nothing was written"

    asyncio.run(scenario())
