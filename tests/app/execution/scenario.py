"""Helpers for tests of a running worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import numpy as np

from scpalm.app.queue.transport import WorkItem, WorkResult
from scpalm.app.queue.transports.memory import MemoryTransport


def run(scenario: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def submit_all(transport: MemoryTransport, works: list[WorkItem]) -> Awaitable[list[WorkResult]]:
    for work in works:
        await transport.submit(work)
    return asyncio.gather(*(transport.reply(work.id) for work in works))


def values_of(outcome: WorkResult) -> np.ndarray:
    assert outcome.values is not None
    return outcome.values["embed"]
