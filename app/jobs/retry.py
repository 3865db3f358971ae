"""Commands that need a ledger, a spool or a queue, tried again while that is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from scpalm.app.errors import NotReadyError, QueueFullError, StorageFullError
from scpalm.app.storage.spool import SpoolError

log = logging.getLogger("scpalm.jobs")

T = TypeVar("T")

# A ledger, spool or queue that is unavailable comes back, and a job can wait.
UNAVAILABLE = (NotReadyError, StorageFullError, SpoolError, QueueFullError)


async def retry_while_unavailable(command: Callable[[], Awaitable[T]]) -> T:
    """The result of a command; tried again, without an end, while what it needs is unavailable."""
    logged = False
    while True:
        try:
            return await command()
        except UNAVAILABLE as error:
            if not logged:
                log.warning("jobs wait: %s", error.detail)
            logged = True
            pause = min(5.0, error.retry_after or 1.0) if isinstance(error, QueueFullError) else 0.5
            await asyncio.sleep(pause)
