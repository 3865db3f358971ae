"""What is special about the ledger in Redis: leases of many processes, outages, earlier versions of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scpalm.app.errors import NotReadyError
from scpalm.app.jobs.ledger.ledger import MAX_DEATHS, LedgerVersionError
from tests.app.jobs.ledger.ledgers import LEASE_SECONDS, add, in_redis, take, take_soon
from tests.redis_server import RedisServer, needs_redis


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
