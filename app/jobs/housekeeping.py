"""Keep the storage of jobs tidy: count jobs, remove expired ones, and remove files that no job owns."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container

from scpalm.app.background import Beat
from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.ledger.ledger import STATES, State
from scpalm.app.jobs.retry import UNAVAILABLE

log = logging.getLogger("scpalm.jobs")

_EXPIRY_CHECK_SECONDS = 600.0
_COUNT_SECONDS = 2.0


class Housekeeping:
    """Background work on the jobs of a home. Each loop runs until it is cancelled.

    Args:
        home: storage of the jobs.
        keep_seconds: how long ended jobs and their results are kept.
        accepting: ids of jobs whose body this process is storing now.

    Attributes:
        counts: number of jobs in each state, as last read from the ledger.
    """

    def __init__(self, home: JobHome, keep_seconds: float, accepting: Container[str]) -> None:
        self._home, self._keep_seconds, self._accepting = home, keep_seconds, accepting
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)

    async def count(self, look: Callable[[], Awaitable[None]], beat: Beat) -> None:
        """Read the counts every few seconds, and call ``look``, which may read the ledger, too."""
        while True:
            try:
                self.counts = await self._home.ledger.counts()
                await look()
            except UNAVAILABLE as error:
                log.debug("jobs cannot be counted: %s", error)
            beat()
            await asyncio.sleep(_COUNT_SECONDS)

    async def tidy(self, beat: Beat) -> None:
        """Remove, at intervals, what is no longer needed."""
        while True:
            try:
                await self.expire()
                await self.sweep()
            except (*UNAVAILABLE, JobStorageError) as error:
                log.warning("files of jobs cannot be removed now: %s", error)
            beat()
            await asyncio.sleep(_EXPIRY_CHECK_SECONDS)

    async def expire(self) -> None:
        """Remove jobs that ended long ago. A job whose files cannot be removed is kept until they can."""
        for job_id in await self._home.ledger.expired(time.time() - self._keep_seconds):
            if await remove(self._home.files_of(job_id)):
                await self._home.ledger.forget(job_id)

    async def sweep(self) -> None:
        """Remove files without a job: their process died before the ledger had the job, or the ledger lost it."""
        for job_id in await asyncio.to_thread(self._home.folders.older_than, self._home.sweep_seconds):
            if job_id in self._accepting or await self._home.ledger.get(job_id) is not None:
                continue
            if await remove(self._home.files_of(job_id)):
                log.info("removed the files of %s, which is no job", job_id)


async def remove(files: JobFiles) -> bool:
    """Remove the files of a job. False if some are left, to be removed later by `Housekeeping`."""
    try:
        await asyncio.to_thread(files.remove)
    except (*UNAVAILABLE, JobStorageError) as error:
        log.warning("files of a job cannot be removed now: %s", error)
        return False
    return True
