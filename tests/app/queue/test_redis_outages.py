"""Workers and Redis that are away for a moment: no live process counts as dead."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from scpalm.app.queue.redis import leases as leases_module
from scpalm.app.queue.redis import requests as requests_module
from scpalm.app.queue.redis import status as status_module
from scpalm.app.queue.transport import MAX_DELIVERIES
from tests.app.fakes import make_work
from tests.app.queue.conftest import opener, run
from tests.app.queue.test_contract import lease, none_left, outcome, stop_renewals
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis
LEASE_SECONDS = 0.3


def test_a_worker_that_has_just_answered_is_no_missing_worker(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers have died, and the first new one answers before the service looks again."""
    monkeypatch.setattr(requests_module, "STATUS_SECONDS", 60.0)
    open_redis = opener(redis_server, tmp_path, "missing-worker")

    async def scenario() -> None:
        async with open_redis(works=False) as service:
            fault = service.fault()
            assert fault is not None and "No worker" in fault.detail
            await service.submit(work := make_work(3))
            async with open_redis() as worker:
                (held,) = await lease(worker)
                worker.settle(held, outcome(3))
                await service.reply(work.id)
                assert service.fault() is None, "the client sends its next request now"

    run(scenario())


def test_a_pause_of_redis_is_no_death_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leases_module, status_module):
        monkeypatch.setattr(module, "pause_ms", lambda lease_seconds: 400)
    server = RedisServer(tmp_path / "data").start()
    assert server.process is not None
    redeliveries = 0

    def on_redelivery() -> None:
        nonlocal redeliveries
        redeliveries += 1

    options = {"lease_seconds": LEASE_SECONDS, "on_redelivery": on_redelivery}
    open_redis = opener(server, tmp_path, "pauses")

    async def scenario() -> None:
        async with open_redis(**options) as one, open_redis(**options) as other:
            await one.submit(work := make_work(3))
            (held,) = await lease(one)
            for _ in range(MAX_DELIVERIES + 1):
                assert not await none_left(other)
                server.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
                await asyncio.sleep(3 * LEASE_SECONDS)
                server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                for _ in range(5):
                    assert not await none_left(other), "its holder could not renew the lease, and has not died"
                    one.extend(held, 0)
                    await asyncio.sleep(LEASE_SECONDS / 5)
            assert one.settle(held, outcome(3, 7.0))
            got = await one.reply(work.id)
            assert got.error is None and redeliveries == 0

    try:
        run(scenario())
    finally:
        server.stop()


def test_a_worker_that_comes_back_has_not_died(redis_server: RedisServer, tmp_path: Path) -> None:
    open_redis = opener(redis_server, tmp_path, "comes-back")
    options = {"lease_seconds": LEASE_SECONDS}

    async def scenario() -> None:
        async with open_redis(**options) as one, open_redis(**options) as other:
            await one.submit(work := make_work(3))
            workers = [one, other]
            (held,) = await lease(one)
            for turn in range(2 * MAX_DELIVERIES):
                holder, next_holder = workers[turn % 2], workers[(turn + 1) % 2]
                stop_renewals(holder)
                (taken,) = await lease(next_holder)
                assert taken.deliveries == 2, "the earlier deaths do not count"
                holder._leases._stall_seconds = 60.0  # it goes on, and asks for its lease
                holder.extend(held, 0)
                while not held.abandoned:
                    await asyncio.sleep(0.01)
                held = taken
            assert workers[0].settle(held, outcome(3, 7.0))
            assert (await one.reply(work.id)).error is None

    run(scenario())
