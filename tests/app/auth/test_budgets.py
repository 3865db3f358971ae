from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from scpalm.app.auth.budgets import Budgets, Charge, MemoryBudgetStore, open_budgets
from scpalm.app.auth.keys import ApiKey, hash_key
from scpalm.app.auth.redis_budgets import RedisBudgetStore
from scpalm.app.errors import NotReadyError, RateLimitError
from tests.app.fakes import INFO, Client
from tests.redis_server import RedisServer, needs_redis

TWO_CELLS = {
    "genes": [f"GENE{n}" for n in range(12)],
    "indptr": [0, 2, 4],
    "indices": [0, 1, 2, 3],
    "data": [1, 2, 3, 4],
}
KEY = {"Authorization": "Bearer first"}
ASYNC = {**KEY, "Prefer": "respond-async"}


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def empty_redis(redis_server: RedisServer) -> RedisServer:
    redis_server.client().flushall()
    return redis_server


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "lab", "sha256": hash_key("first"), "rows_per_minute": 2}]}))
    return path


def job_of(seed: int) -> dict[str, object]:
    """A request with two cells. Each seed gives a different job."""
    return {**TWO_CELLS, "data": [1, 2, 3, seed + 1]}


def test_one_request_may_overdraw_the_budget_which_then_refills() -> None:
    now = [0.0]
    budgets = Budgets(MemoryBudgetStore(lambda: now[0]))
    key = ApiKey("lab", (), cells_per_minute=60)

    async def wait_seconds() -> int:
        try:
            await budgets.check(key)
        except RateLimitError as error:
            assert error.retry_after is not None and "cells" in error.detail
            return error.retry_after
        return 0

    async def scenario() -> None:
        assert await wait_seconds() == 0
        await budgets.charge_cells(key, 90)
        with pytest.raises(RateLimitError):
            await budgets.charge_cells(key, 1)
        assert await wait_seconds() == 31, "a refused request is not charged"
        with pytest.raises(RateLimitError):  # the file was read again with another limit
            await budgets.check(ApiKey("lab", (), cells_per_minute=120))
        now[0] = 30.0
        assert await wait_seconds() == 1
        now[0] = 31.5
        assert await wait_seconds() == 0
        now[0] = 1000.0
        await budgets.charge_cells(key, 60)
        assert await wait_seconds() == 1, "at most one minute's budget accumulates"

    asyncio.run(scenario())


def test_keys_without_budgets_never_query_the_store() -> None:
    async def scenario() -> None:
        budgets = open_budgets("redis://127.0.0.1:1/0")  # no server there
        for key in (None, ApiKey("free", ())):
            await budgets.check(key)
            await budgets.charge_cells(key, 10)
            await budgets.charge_bytes(key, 10)
        await budgets.close()

    asyncio.run(scenario())


@needs_redis
def test_redis_and_memory_buckets_have_the_same_levels(empty_redis: RedisServer) -> None:
    async def scenario() -> None:
        memory, shared = MemoryBudgetStore(), RedisBudgetStore(empty_redis.url)
        cells, sent = Charge("cells", "lab", 6, 10), Charge("bytes", "lab", 6, 4)
        for store in (memory, shared):
            assert await store.charge([cells, sent]) == [6, 6]
            assert await store.charge([cells, sent]) == pytest.approx([-4, 2], abs=0.5), "a check charges nothing"
            await store.owe(cells)
            assert await store.charge([cells, sent]) == pytest.approx([-14, 2], abs=0.5)
        names = empty_redis.client().keys("scpalm:{budgets}:*")
        assert len(names) == 2 and all(0 < empty_redis.client().pttl(name) <= 300_000 for name in names)
        await shared.close()

    asyncio.run(scenario())


@needs_redis
def test_keys_with_budgets_are_refused_at_once_while_redis_is_unreachable(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "data").start()

    async def scenario() -> None:
        budgets = open_budgets(server.url)
        key = ApiKey("lab", (), cells_per_minute=2)
        await budgets.charge_cells(key, 20)
        server.kill()
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(NotReadyError, match="budgets"):
                await budgets.check(key)
        assert time.monotonic() - started < 1.0
        server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await budgets.check(key)
                except NotReadyError:
                    await asyncio.sleep(0.02)
                except RateLimitError:
                    break
        await budgets.close()

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


@needs_redis
def test_an_unresponsive_redis_delays_only_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scpalm.app.auth.redis_budgets.COMMAND_SECONDS", 0.2)

    async def scenario() -> None:
        silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
        budgets = open_budgets(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}/0")
        started = time.monotonic()
        for _ in range(5):
            with pytest.raises(NotReadyError):
                await budgets.check(ApiKey("lab", (), bytes_per_minute=2))
        assert time.monotonic() - started < 1.0
        await budgets.close()
        silent.close()

    asyncio.run(scenario())


def test_jobs_are_charged_to_their_key(make_app: Callable[..., FastAPI], keys_file: Path) -> None:
    with Client(make_app(api_keys_file=keys_file)) as client:
        client.wait_until_loaded()
        first, second = (client.post("/embed", json=job_of(seed), headers=ASYNC) for seed in range(2))
        assert first.status_code == 202, first.text
        assert second.status_code == 429 and 1 <= int(second.headers["retry-after"]) <= 60
        assert client.post("/embed", json=TWO_CELLS, headers=KEY).status_code == 429, (
            "requests and jobs share one budget"
        )


def accept_without_workers(client: Client) -> None:
    """Open the models although there is no worker: jobs are accepted and stay queued."""
    for model in client.wait_until_loaded().service.models.all:
        model.transport.fault = lambda: None  # type: ignore[method-assign]


@needs_redis
def test_replicas_on_one_redis_share_a_budget(
    make_app: Callable[..., FastAPI], keys_file: Path, empty_redis: RedisServer, readable_network: None
) -> None:
    settings = {"api_keys_file": keys_file, "redis_url": empty_redis.url}
    with Client(make_app(**settings)) as one, Client(make_app(**settings)) as other:
        for client in (one, other):
            accept_without_workers(client)
        first = one.post("/embed", json=job_of(0), headers=ASYNC)
        assert first.status_code == 202, first.text
        for client in (one, other):
            second = client.post("/embed", json=job_of(1), headers=ASYNC)
            assert second.status_code == 429 and int(second.headers["retry-after"]) >= 1


@pytest.fixture
def readable_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch session_info, because the bundle of these tests has no network to read it from."""
    monkeypatch.setattr("scpalm.app.serving.opener.session_info", lambda bundle: INFO)
