"""Ends asyncio tasks that may miss their first cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


async def cancel_until_done(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks again and again until all have ended.

    A Redis client that is cancelled while it waits for an answer may raise a connection error instead. The task's loop
    then takes that for an outage and goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
