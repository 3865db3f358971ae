"""What the jobs of an owner take, for the quotas of API keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.ledger.ledger import Job, Ledger

# Jobs of one owner that are counted.
_MOST_JOBS = 100_000


@dataclass(frozen=True)
class Usage:
    """Number of jobs, and bytes of their files."""

    num_jobs: int
    num_bytes: int


async def usage_of(owner: str, ledger: Ledger, files_of: Callable[[Job], JobFiles]) -> Usage:
    """The usage of an owner. Raises the errors of the ledger and of `JobFiles`."""
    # A cancelled job has no files.
    jobs = [job for job in await ledger.latest(owner, _MOST_JOBS) if job.state != "cancelled"]
    sizes = await asyncio.to_thread(lambda: [files_of(job).num_bytes() for job in jobs])
    return Usage(len(jobs), sum(sizes))
