"""When a worker may leave a queue, and when a service may move to one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scpalm.app.errors import NotReadyError
from scpalm.app.queue.redis.requests import STATUS_SECONDS
from scpalm.app.serving import model as model_module
from scpalm.app.serving.models import Models
from tests.app.queue.conftest import opener, run
from tests.redis_server import RedisServer, needs_redis


@needs_redis
def test_a_worker_sees_when_the_last_service_is_gone(redis_server: RedisServer, tmp_path: Path) -> None:
    open_redis = opener(redis_server, tmp_path, "in-use")

    async def scenario() -> None:
        async with open_redis(takes_requests=False, lease_seconds=0.5) as worker:
            assert not worker.in_use  # it does not count itself
            async with open_redis(works=False, lease_seconds=0.5) as service:
                await asyncio.sleep(2 * STATUS_SECONDS)
                assert worker.in_use and not service.in_use
            while worker.in_use:  # until the heartbeat of the service lapses
                await asyncio.sleep(0.05)

    run(scenario())


def test_a_queue_in_this_process_has_no_other_users(open_transport: Any) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            assert not transport.in_use

    run(scenario())


class _Model:
    """A model whose queue has a fault, or none."""

    def __init__(self, fault: Exception | None) -> None:
        self.transport = self
        self._fault, self.closed = fault, False

    def fault(self) -> Exception | None:
        return self._fault

    async def close(self, *, at_once: bool) -> None:
        self.closed = at_once

    wait_for_worker = model_module.ServedModel.wait_for_worker


@pytest.mark.parametrize(("new", "old", "moves"), [(False, True, False), (True, True, True), (False, False, True)])
def test_a_service_stays_with_a_model_that_computes(
    monkeypatch: pytest.MonkeyPatch, *, new: bool, old: bool, moves: bool
) -> None:
    monkeypatch.setattr(model_module, "_WORKER_SECONDS", 0.1)
    monkeypatch.setattr(model_module, "_LOOK_SECONDS", 0.02)
    successor, predecessor = (_Model(None if works else NotReadyError("no worker")) for works in (new, old))

    async def scenario() -> None:
        await Models._wait_for_worker(successor, predecessor)  # type: ignore[arg-type]

    if moves:
        run(scenario())
    else:
        with pytest.raises(NotReadyError, match="No worker has opened"):
            run(scenario())
    assert successor.closed is not moves
