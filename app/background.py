"""Ending tasks that may not hear it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    A client (of Redis, say) that is cancelled while it waits for an answer may raise an error of the connection
    instead, which a loop takes for a server that is away and goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
