"""Retry commands while the ledger, the spool or the queue is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar

from scpalm.app.background import TaskSupervisor
from scpalm.app.errors import NotReadyError, QueueFullError, StorageFullError
from scpalm.app.storage.spool import SpoolError

log = logging.getLogger("scpalm.jobs")

T = TypeVar("T")

# Jobs can wait, so these errors are retried instead of failing the job.
UNAVAILABLE = (NotReadyError, StorageFullError, SpoolError, QueueFullError)
# What health checks say about jobs.
TASK_NAME = "jobs"


class Retry:
    """Runs commands, and repeats them without limit on the errors in UNAVAILABLE.

    Args:
        tasks: receives what jobs wait for. A full queue is not reported: waiting for it is their normal state.
    """

    def __init__(self, tasks: TaskSupervisor) -> None:
        self._tasks = tasks

    async def __call__(self, command: Callable[[], Awaitable[T]]) -> T:
        """Run a command and return its result."""
        logged = False
        with ExitStack() as waiting:
            while True:
                try:
                    return await command()
                except UNAVAILABLE as error:
                    full = isinstance(error, QueueFullError)
                    if not logged:
                        log.warning("jobs are waiting: %s", error.detail)
                        if not full:
                            waiting.enter_context(self._tasks.waiting(TASK_NAME, error.detail))
                    logged = True
                    await asyncio.sleep(min(5.0, error.retry_after or 1.0) if full else 0.5)
