"""Every ledger, for the tests of what the Protocol promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from tests.app.jobs.ledger.ledgers import Scenario, in_redis
from tests.redis_server import RedisServer, require_redis


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on an empty ledger."""
    if request.param == "redis":
        require_redis()

    async def run(scenario: Scenario) -> None:
        async with asyncio.timeout(20):
            if request.param == "redis":
                server: RedisServer = request.getfixturevalue("redis_server")
                server.client().flushall()
                async with in_redis(server) as shared:
                    await scenario(shared)
            else:
                ledger = SqliteLedger(tmp_path / "jobs.sqlite")
                await scenario(ledger)
                await ledger.close()

    return lambda scenario: asyncio.run(run(scenario))
