"""Every transport, for the tests of what the Protocol promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from scpalm.app.queue.redis.transport import RedisTransport
from scpalm.app.queue.registry import QueueEvents, QueueOptions
from scpalm.app.queue.transport import Transport
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.storage.spool import Spool
from scpalm.model.bundle import Bundle
from tests.app.fakes import INFO
from tests.redis_server import RedisServer, require_redis

LIMITS = {"max_rows": 100, "max_bytes": 1 << 20}
Open = Any


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Shared by all tests: each uses another bundle, and so other keys."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


def bundle_named(name: str, path: Path = Path("/nowhere")) -> Bundle:
    return Bundle(path, json.loads(json.dumps({"name": name, "version": "1", "files": {}})))


@pytest.fixture(params=["memory", "redis"])
def open_transport(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a transport with the given limits, as an asynchronous context; ``another`` opens one more worker's."""
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory(**options: Any) -> AsyncIterator[Transport]:
            yield MemoryTransport(**{**LIMITS, **options})

        # The workers of a queue in memory share it.
        open_memory.another = lambda transport, **options: nullcontext(transport)  # type: ignore[attr-defined]
        return open_memory
    require_redis()
    return opener(request.getfixturevalue("redis_server"), tmp_path, request.node.name)


def opener(server: RedisServer, folder: Path, name: str) -> Open:
    """Opens transports on a real Redis, each with the side of a service and that of a worker."""

    @asynccontextmanager
    async def open_redis(*, works: bool = True, **options: Any) -> AsyncIterator[RedisTransport]:
        events = QueueEvents(**{event: options.pop(event) for event in list(options) if event.startswith("on_")})
        settings = QueueOptions(url=server.url, events=events, **{**LIMITS, **options})
        transport = RedisTransport(settings, Spool(str(folder / "spool")))
        await transport.start(bundle_named(name), lambda what: None)
        if works:
            transport.serve_leases(INFO)
        try:
            yield transport
        finally:
            await transport.stop()

    open_redis.another = lambda transport, **options: open_redis(**options)  # type: ignore[attr-defined]
    return open_redis


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
