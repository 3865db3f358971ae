"""Retry commands while the ledger, the spool or the queue is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from scpalm.app.errors import NotReadyError, QueueFullError, StorageFullError
from scpalm.app.storage.spool import SpoolError

log = logging.getLogger("scpalm.jobs")

T = TypeVar("T")

# Jobs can wait, so these errors are retried instead of failing the job.
UNAVAILABLE = (NotReadyError, StorageFullError, SpoolError, QueueFullError)


async def retry_while_unavailable(command: Callable[[], Awaitable[T]]) -> T:
    """Run a command and return its result. Retries without limit on the errors in UNAVAILABLE."""
    logged = False
    while True:
        try:
            return await command()
        except UNAVAILABLE as error:
            if not logged:
                log.warning("jobs are waiting: %s", error.detail)
            logged = True
            pause = min(5.0, error.retry_after or 1.0) if isinstance(error, QueueFullError) else 0.5
            await asyncio.sleep(pause)
