"""The interface that all ledgers share, and the special features of each."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scpalm.app.errors import NotReadyError
from scpalm.app.jobs.ledger.ledger import MAX_DEATHS, Ledger, LedgerVersionError
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from tests.app.jobs.ledger.ledgers import LEASE_SECONDS, Scenario, add, in_redis, take, take_soon
from tests.redis_server import RedisServer, needs_redis


def test_jobs_run_in_order_and_once(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        for name in ("a", "b"):
            await add(ledger, name)
            await asyncio.sleep(0.002)
        first, second = await take(ledger), await take(ledger)
        assert await ledger.take(("m",)) is None
        assert [first.id, second.id] == ["a", "b"] and first.attempt == 1 and first.state == "running"
        assert await ledger.end(first, "succeeded") and not await ledger.end(first, "failed", "late")
        assert await ledger.counts() == {"queued": 0, "running": 1, "succeeded": 1, "failed": 0, "cancelled": 0}
        assert [job.id for job in await ledger.latest()] == ["b", "a"]

    check(scenario)


def test_a_requeued_job_is_a_new_attempt_that_fences_off_the_previous_one(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await add(ledger, "a")
        stale = await take(ledger)
        await ledger.set_rows(stale, 15)
        assert await ledger.commit_chunk(stale, 0, 10)
        assert not await ledger.commit_chunk(stale, 0, 10), "a chunk is committed once"
        assert await ledger.renew(stale) and await ledger.end(stale, "queued")
        fresh = await take(ledger)
        assert (fresh.attempt, fresh.rows_done, fresh.rows) == (2, 10, 15)
        assert not await ledger.commit_chunk(stale, 1, 10) and not await ledger.end(stale, "failed")
        assert not await ledger.renew(stale) and await ledger.renew(fresh)
        assert await ledger.commit_chunk(fresh, 1, 5) and await ledger.chunks(fresh) == {0, 1}
        job = await ledger.get("a")
        assert job is not None and job.rows_done == 15

    check(scenario)


def test_the_same_request_is_the_same_job_unless_it_failed(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await add(ledger, "a", fingerprint="same")
        assert (await add(ledger, "b", fingerprint="same")).id == "a"
        assert (await add(ledger, "c", owner="other", fingerprint="same")).id == "c", "owners do not share jobs"
        assert await ledger.end(await take(ledger), "failed", "why")
        assert (await add(ledger, "d", fingerprint="same")).id == "d"
        failed = await ledger.get("a")
        assert failed is not None and (failed.state, failed.error) == ("failed", "why")
        await add(ledger, "e", owner="Ä:{x}", key="k")
        assert (await add(ledger, "f", owner="Ä:{x}", fingerprint="e", key="k")).id == "e", "the key identifies the job"
        assert await ledger.get("e", "Ä:{x}") is not None and await ledger.get("e", "another") is None
        assert [job.id for job in await ledger.latest("Ä:{x}")] == ["e"]

    check(scenario)


def test_a_cancelled_job_fences_off_its_holder(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await add(ledger, "a")
        await add(ledger, "b")
        job = await take(ledger)
        assert await ledger.cancel("a") and not await ledger.cancel("a") and not await ledger.cancel("none")
        assert not await ledger.renew(job)
        assert not await ledger.commit_chunk(job, 0, 1) and not await ledger.end(job, "succeeded")
        assert await ledger.cancel("b") and await ledger.take(("m",)) is None
        assert (await ledger.counts())["cancelled"] == 2

    check(scenario)


def test_old_jobs_are_forgotten_with_their_chunks(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await add(ledger, "a", key="k")
        job = await take(ledger)
        await ledger.commit_chunk(job, 0, 1)
        assert await ledger.expired(time.time() + 1) == [], "open jobs do not expire"
        await ledger.forget("a")
        assert await ledger.get("a") is not None
        await ledger.end(job, "succeeded")
        assert await ledger.expired(time.time() - 60) == []
        assert await ledger.expired(time.time() + 1) == ["a"]
        await ledger.forget("a")
        assert await ledger.get("a") is None and await ledger.chunks(job) == set()
        assert (await add(ledger, "b", fingerprint="a", key="k")).id == "b"
        assert await ledger.counts() == {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}

    check(scenario)


def test_committed_chunks_survive_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = SqliteLedger(tmp_path / "jobs.sqlite")
        await add(first, "a", owner="owner")
        await first.commit_chunk(await take(first), 0, 7)
        # Not closed, as after a kill.
        second = SqliteLedger(tmp_path / "jobs.sqlite")
        again = await second.get("a", "owner")
        assert again is not None and again.rows_done == 7 and again.state == "running"
        assert second.requeue_running() == 1
        assert (await take(second)).attempt == 2
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_a_job_that_kills_every_process_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        for death in range(MAX_DEATHS):
            ledger = SqliteLedger(tmp_path / "jobs.sqlite")
            if death == 0:
                await add(ledger, "a")
            else:
                assert ledger.requeue_running() == 1
            await take(ledger)
            await ledger.close()
        ledger = SqliteLedger(tmp_path / "jobs.sqlite")
        assert ledger.requeue_running() == 0
        job = await ledger.get("a")
        assert job is not None and job.state == "failed" and "died" in str(job.error)
        await ledger.close()

    asyncio.run(scenario())


def test_a_ledger_of_the_previous_release_is_read(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, fingerprint TEXT NOT NULL, idempotency_key TEXT, "
        "manifest TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, rows INTEGER, "
        "rows_done INTEGER NOT NULL DEFAULT 0, error TEXT, created REAL NOT NULL, started REAL, ended REAL, "
        "UNIQUE (owner, idempotency_key))"
    )
    database.execute(
        "INSERT INTO jobs (id, owner, fingerprint, manifest, state, created) VALUES ('a', '', 'a', '{}', 'queued', 1)"
    )
    database.commit()
    database.close()

    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / "jobs.sqlite")
        assert (await take(ledger)).id == "a"
        await ledger.close()

    asyncio.run(scenario())


@needs_redis
def test_a_job_with_an_expired_lease_is_taken_over(redis_server: RedisServer) -> None:
    redis_server.client().flushall()

    async def scenario() -> None:
        async with in_redis(redis_server) as one, in_redis(redis_server) as other:
            await add(one, "a")
            stale = await take(one)
            for _ in range(4):  # one that speaks keeps it
                await asyncio.sleep(LEASE_SECONDS / 2)
                assert await one.renew(stale) and await other.take(("m",)) is None
            fresh = await take_soon(other)
            assert fresh.attempt == 2 and fresh.deaths == 1
            assert not await one.commit_chunk(stale, 0, 1) and not await one.end(stale, "succeeded")
            assert await other.commit_chunk(fresh, 0, 1)
            job = await other.get("a")
            assert job is not None and job.deaths == 0, "a committed chunk resets the count"

    asyncio.run(scenario())


@needs_redis
def test_a_job_that_kills_processes_becomes_a_dead_letter_and_can_be_replayed(redis_server: RedisServer) -> None:
    redis_server.client().flushall()

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            await add(ledger, "a")
            await add(ledger, "b")
            assert (await take(ledger)).id == "a"
            others = await take(ledger)
            assert others.id == "b"
            for _ in range(MAX_DEATHS - 1):
                assert (await take_soon(ledger, others)).id == "a"
            async with asyncio.timeout(5):
                while not (found := await ledger.dead()):
                    assert await ledger.take(("m",)) is None and await ledger.renew(others)
                    await asyncio.sleep(0.01)
            (dead,) = found
            assert dead.id == "a" and dead.state == "failed" and "died" in str(dead.error)
            assert not await ledger.replay("b") and await ledger.replay("a") and not await ledger.replay("a")
            assert await ledger.dead() == [] and (await ledger.counts())["failed"] == 0
            again = await take(ledger)
            assert (again.id, again.deaths, again.error) == ("a", 0, None)

    asyncio.run(scenario())


@needs_redis
def test_a_process_takes_only_jobs_of_its_models(redis_server: RedisServer) -> None:
    redis_server.client().flushall()

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            await add(ledger, "a", model="new")
            assert await ledger.take(("old",)) is None and await ledger.take(()) is None
            assert (await take(ledger, "old", "new")).id == "a"

    asyncio.run(scenario())


@needs_redis
def test_an_unreachable_ledger_is_an_error(tmp_path: Path) -> None:
    # By default Redis may write a moment after it has answered, while the disk is busy.
    server = RedisServer(tmp_path / "data", appendfsync="always").start()

    async def scenario() -> None:
        async with in_redis(server) as ledger:
            await add(ledger, "a")
            server.kill()
            with pytest.raises(NotReadyError, match="Redis"):
                await ledger.get("a")
            server.start()
            assert await ledger.get("a") is not None, "the append-only file has it"

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


@pytest.mark.parametrize("version", [3, -1])
def test_a_ledger_of_a_newer_release_is_refused(tmp_path: Path, version: int) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(LedgerVersionError, match=f"version {version}.*reads up to 2.*SCPALM_RESULTS_DIR"):
        SqliteLedger(tmp_path / "jobs.sqlite")


def test_a_file_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerVersionError, match="is not a job ledger"):
        SqliteLedger(tmp_path / "jobs.sqlite")


@needs_redis
@pytest.mark.parametrize("version", ["3", "garbage", ""])
def test_a_redis_ledger_of_a_newer_release_is_refused(redis_server: RedisServer, version: str) -> None:
    redis_server.client().flushall()
    redis_server.client().set("scpalm:{jobs}:version", version)

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            for command in (ledger.take(("m",)), ledger.get("a"), add(ledger, "a"), ledger.counts()):
                with pytest.raises(LedgerVersionError, match=f"version '{version}'; this release reads up to 2"):
                    await command

    asyncio.run(scenario())
    assert redis_server.client().keys("*") == [b"scpalm:{jobs}:version"], "nothing else is written"


@needs_redis
def test_leases_of_the_previous_release_are_honoured_until_they_expire(redis_server: RedisServer) -> None:
    """Version 1 kept leases in a sorted set and had no version key."""
    client = redis_server.client()
    client.flushall()
    job: Any = {
        "id": "a", "owner": "", "fingerprint": "a", "key": "", "manifest": "{}", "model": "m", "name": "",
        "state": "running", "attempt": 1, "rows_done": 7, "deaths": 1, "created": 1, "started": 2,
    }  # fmt: skip
    client.hset("scpalm:{jobs}:job:a", mapping=job)
    seconds, microseconds = client.time()
    client.zadd("scpalm:{jobs}:running", {"a": 1000 * seconds + microseconds // 1000 + 300})

    async def scenario() -> None:
        async with in_redis(redis_server) as ledger:
            assert await ledger.take(("m",)) is None, "its holder may still be alive"
            taken = None
            async with asyncio.timeout(5):
                while taken is None:
                    taken = await ledger.take(("m",))
            assert (taken.id, taken.attempt, taken.deaths, taken.rows_done) == ("a", 2, 2, 7)
            assert await ledger.renew(taken) and await ledger.end(taken, "succeeded")

    asyncio.run(scenario())
    assert client.get("scpalm:{jobs}:version") == b"2" and not client.exists("scpalm:{jobs}:running")
    assert client.xlen("scpalm:{jobs}:running:m") == 0, "a finished lease must leave nothing behind"
