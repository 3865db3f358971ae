"""Cancel asyncio tasks that may swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


async def cancel_until_done(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, repeatedly if needed, until all of them have ended.

    A Redis client that is cancelled while it waits for a reply may raise a connection error instead of
    CancelledError. The task then treats it as an outage and keeps running.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
