"""Helpers to write scenarios for every ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from scpalm.app.jobs.ledger.ledger import Job, Ledger, Submission
from scpalm.app.jobs.ledger.redis import RedisLedger
from tests.redis_server import RedisServer

LEASE_SECONDS = 0.2
Scenario = Callable[[Ledger], Awaitable[None]]


@asynccontextmanager
async def in_redis(server: RedisServer) -> AsyncIterator[RedisLedger]:
    ledger = RedisLedger(server.url, lease_seconds=LEASE_SECONDS)
    try:
        yield ledger
    finally:
        await ledger.close()


async def add(
    ledger: Ledger, name: str, *, owner: str = "", fingerprint: str = "", key: str | None = None, model: str = "m"
) -> Job:
    submission = Submission(owner, fingerprint or name, f"request of {fingerprint or name}", key)
    return await ledger.add(name, submission, "{}", model)


async def take(ledger: Ledger, *models: str) -> Job:
    job = await ledger.take(models or ("m",))
    assert job is not None
    return job


async def take_soon(ledger: Ledger, *renewed: Job) -> Job:
    """Take the next job whose lease expires, renewing the other leases meanwhile."""
    async with asyncio.timeout(5):
        while (job := await ledger.take(("m",))) is None:
            for other in renewed:
                assert await ledger.renew(other)
            await asyncio.sleep(0.01)
    return job
