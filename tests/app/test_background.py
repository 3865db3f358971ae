from __future__ import annotations

import asyncio

from scpalm.app.background import cancel_until_done
from tests.app.queue.conftest import run


def test_a_loop_that_swallows_its_cancellation_still_ends() -> None:
    """A Redis client that is cancelled in the middle of a reply swallows the cancellation."""

    async def loop(swallowed: int) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed == 0:
                    raise
                swallowed -= 1

    async def scenario() -> None:
        tasks = [asyncio.create_task(loop(number)) for number in (0, 1, 2)]
        await asyncio.sleep(0)
        await cancel_until_done(tasks)
        assert all(task.cancelled() for task in tasks)

    run(scenario())
