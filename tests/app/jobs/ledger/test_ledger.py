"""The interface that all ledgers share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from scpalm.app.jobs.ledger.ledger import Ledger
from tests.app.jobs.ledger.ledgers import Scenario, add, take


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
