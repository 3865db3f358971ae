"""Garbage in Redis, and messages of other releases, harm neither workers nor services."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from scpalm.app.queue.redis.lease_scripts import GROUP
from scpalm.app.queue.redis.status import WorkerStatus
from scpalm.app.queue.redis.transport import RedisTransport
from tests.app.fakes import make_work
from tests.app.queue.conftest import opener, run, until
from tests.app.queue.test_contract import lease, none_left, outcome
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis
ADDRESSED = {"id": "made-up", "rows": 1, "bytes": 1, "to": "no service"}
GARBAGE = [
    {"x": b"\xff\xfe"},
    {"id": b"\xff", "rows": 1, "bytes": 1, "to": "a", "payload": b"x"},
    {"id": "a", "rows": "many", "bytes": 1, "to": "a", "payload": b"x"},
    ADDRESSED,
    {**ADDRESSED, "payload": b"\x80\x04garbage"},
    {**ADDRESSED, "payload": b""},
    {**ADDRESSED, "spool": "../../etc/passwd"},
    {**ADDRESSED, "spool": b"\xff"},
]


def test_a_worker_goes_on_after_garbage(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opener(redis_server, tmp_path, "garbage-for-workers")() as transport:
            assert isinstance(transport, RedisTransport)
            stream = transport._leases._keys.stream("online")
            client = redis.Redis.from_url(redis_server.url)
            for fields in GARBAGE:
                client.xadd(stream, fields)  # type: ignore[arg-type]
            await transport.submit(work := make_work(3))
            (held,) = await lease(transport)
            assert held.work.id == work.id
            transport.settle(held, outcome(3))
            assert (await transport.reply(work.id)).values is not None
            assert not await none_left(transport)
            await until(lambda: client.xlen(stream) == 0)
            assert client.xpending(stream, GROUP)["pending"] == 0
            client.close()

    run(scenario())


def test_a_service_goes_on_after_garbage(redis_server: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opener(redis_server, tmp_path, "garbage-for-services")() as transport:
            assert isinstance(transport, RedisTransport)
            stream = transport._leases._keys.replies + transport._requests.name
            client = redis.Redis.from_url(redis_server.url)
            for fields in GARBAGE:
                client.xadd(stream, fields)  # type: ignore[arg-type]
            await transport.submit(work := make_work(3))
            (held,) = await lease(transport)
            transport.settle(held, outcome(3))
            assert (await transport.reply(work.id)).values is not None
            await until(lambda: client.xlen(stream) == 0)
            client.close()

    run(scenario())


@pytest.mark.parametrize("payload", [b"garbage", b""])
def test_a_reply_that_cannot_be_read_fails_its_request(
    redis_server: RedisServer, tmp_path: Path, payload: bytes
) -> None:
    async def scenario() -> None:
        async with opener(redis_server, tmp_path, f"unreadable-reply-{len(payload)}")() as transport:
            assert isinstance(transport, RedisTransport)
            await transport.submit(work := make_work(3))
            client = redis.Redis.from_url(redis_server.url)
            stream = transport._leases._keys.replies + transport._requests.name
            client.xadd(stream, {"id": work.id, "payload": payload})
            error = (await asyncio.wait_for(transport.reply(work.id), 10)).error
            assert error is not None and "cannot be read" in error.detail
            client.close()

    run(scenario())


def test_reports_of_other_releases_are_read() -> None:
    later = b'{"device": "cuda:0", "rows_per_second": 7.5, "memory": 3}'
    assert WorkerStatus.from_json(later) == WorkerStatus("cuda:0", 7.5)
    for text in (b"{}", b"[]", b"\xff", b'{"device": 1, "rows_per_second": "x"}'):
        assert WorkerStatus.from_json(text).rows_per_second == 0.0
