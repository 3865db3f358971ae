"""Ledgers while their disk is full, another process holds the lock, or Redis is suspended."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scpalm.app.errors import NotReadyError, StorageFullError
from scpalm.app.jobs.ledger import redis as redis_ledger
from scpalm.app.jobs.ledger.ledger import MAX_DEATHS, Submission
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from tests.app.jobs.ledger.ledgers import LEASE_SECONDS, add, in_redis, take, take_soon
from tests.loop_lag import LoopLag
from tests.redis_server import RedisServer, needs_redis


def test_a_locked_ledger_is_read_and_refuses_changes_without_stopping_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / "jobs.sqlite", busy_seconds=0.5)
        await add(ledger, "a")
        backup = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
        backup.execute("BEGIN IMMEDIATE")
        with LoopLag(asyncio.get_running_loop()):
            change = asyncio.create_task(ledger.cancel("a"))
            while not change.done():
                job = await ledger.get("a")
                assert job is not None and job.state == "queued"
                assert (await ledger.counts())["queued"] == 1 and len(await ledger.latest()) == 1
            with pytest.raises(NotReadyError, match="locked by another process"):
                await change
            assert await ledger.find(Submission("", "a", "request of a")) is not None, "a replay needs no lock"
        backup.execute("ROLLBACK")
        assert await ledger.cancel("a"), "the ledger works again when the lock is gone"
        backup.close()
        await ledger.close()

    asyncio.run(scenario())


def test_a_ledger_on_a_full_disk_refuses_changes_and_works_again_later(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 20)

    async def scenario() -> None:
        ledger = SqliteLedger(disk / "jobs.sqlite")
        await add(ledger, "a")
        (disk / "others").write_bytes(b"\0" * _room(disk))
        for _ in range(3):  # the first failure must not break the connection
            with pytest.raises(StorageFullError, match="SCPALM_RESULTS_DIR"):
                for number in range(1000):
                    await add(ledger, f"b{number}")
        (disk / "others").unlink()
        assert (await take(ledger)).id == "a"
        await add(ledger, "c")
        await ledger.close()

    asyncio.run(scenario())


def _room(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@needs_redis
def test_a_pause_of_redis_is_no_death_of_a_process(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is suspended no process can renew. Afterwards the holders get a whole lease to do so."""
    monkeypatch.setattr(redis_ledger, "pause_ms", lambda lease_seconds: 150)
    redis_server.client().flushall()
    assert redis_server.process is not None

    async def scenario() -> None:
        async with in_redis(redis_server) as one, in_redis(redis_server) as other:
            await add(one, "a")
            job = await take(one)
            for _ in range(MAX_DEATHS + 1):
                assert await other.take(("m",)) is None
                redis_server.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
                await asyncio.sleep(2 * LEASE_SECONDS)
                redis_server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                assert await other.take(("m",)) is None, "no process could renew this lease"
                assert await one.renew(job)
            assert await other.take(("m",)) is None
            assert await one.commit_chunk(job, 0, 1) and await one.end(job, "succeeded")

    asyncio.run(scenario())


@needs_redis
def test_a_process_that_comes_back_has_not_died(redis_server: RedisServer) -> None:
    redis_server.client().flushall()

    async def scenario() -> None:
        async with in_redis(redis_server) as one, in_redis(redis_server) as other:
            await add(one, "a")
            ledgers = [one, other]
            job = await take(one)
            for turn in range(2 * MAX_DEATHS):
                # The holder is silent for longer than its lease, and then renews.
                taken = await take_soon(ledgers[(turn + 1) % 2])
                assert taken.attempt == job.attempt + 1 and taken.deaths == 1
                assert not await ledgers[turn % 2].renew(job), "another process holds the job now"
                assert not await ledgers[turn % 2].renew(job)
                job = taken
                found = await one.get("a")
                assert found is not None and found.deaths == 0
            # One that stays away has died.
            for deaths in range(1, MAX_DEATHS):
                assert (await take_soon(one)).deaths == deaths
            ends = time.monotonic() + 10
            while await one.take(("m",)) is None and not await one.dead():
                assert time.monotonic() < ends
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
