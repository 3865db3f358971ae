"""The interface of a ledger of jobs, and the rules that both ledgers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from scpalm.app.errors import NotReadyError
from scpalm.app.queue.transport import MAX_DELIVERIES

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")
# A job becomes a dead letter as work in the queue does; a committed chunk starts the count again.
MAX_DEATHS = MAX_DELIVERIES
DIED = f"{MAX_DEATHS} processes died while they ran this job. Send its cells in smaller files."


class LedgerVersionError(NotReadyError):
    """A ledger that this release cannot read: of a newer release, or damaged. The text says what to do."""


@dataclass(frozen=True)
class Job:
    """One job at one moment.

    Attributes:
        owner: name of the API key that sent it, "" for none. fingerprint: of body, options and model.
        manifest: JSON of `scpalm.app.jobs.manifest.Manifest`. attempt: how often it was started.
        rows: number of cells, once known. rows_done: cells of committed chunks. error: one line.
        created, started, ended: seconds since the epoch. model: checksum of the model it was sent to.
        deaths: how many processes died while they ran it, since its last chunk.
    """

    id: str
    owner: str
    fingerprint: str
    manifest: str
    state: State
    attempt: int
    rows: int | None
    rows_done: int
    error: str | None
    created: float
    started: float | None
    ended: float | None
    model: str = ""
    deaths: int = 0


class Ledger(Protocol):
    """Each method is one transaction.

    Methods of a ledger on a server raise NotReadyError or StorageFullError when it is away or full, and
    LedgerVersionError when another release wrote it.
    """

    async def add(self, job_id: str, owner: str, fingerprint: str, key: str | None, manifest: str, model: str) -> Job:
        """Accept a job. Returns an earlier job of the owner with this key, or with this fingerprint and not failed."""
        ...

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job, if it belongs to ``owner``; None allows every owner."""
        ...

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        """The latest jobs of an owner; None for those of all owners."""
        ...

    async def counts(self) -> dict[State, int]:
        """Number of jobs in each state."""
        ...

    async def take(self, models: Sequence[str]) -> Job | None:
        """Start a job of these models: one whose lease has lapsed, or else the oldest queued one.

        The new attempt number fences off the former holder.
        """
        ...

    async def renew(self, job: Job) -> bool:
        """Renew the lease, RENEWALS_PER_LEASE times before it lapses. False when the attempt was fenced off."""
        ...

    async def set_rows(self, job: Job, rows: int) -> None:
        """Note how many cells the job has."""
        ...

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        """Record a stored chunk, and renew the lease. False for a known chunk or an attempt that was fenced off."""
        ...

    async def chunks(self, job: Job) -> set[int]:
        """Numbers of the committed chunks."""
        ...

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        """Close a job; ``queued`` puts it back. False when it is closed already, or the attempt was fenced off."""
        ...

    async def cancel(self, job_id: str) -> bool:
        """Close an open job, whichever process runs it. False when it is closed already."""
        ...

    async def dead(self, limit: int = 100) -> list[Job]:
        """The latest dead letters: jobs that failed because processes died while they ran them."""
        ...

    async def replay(self, job_id: str) -> bool:
        """Put a failed job back into the queue with the chunks it has. False when it has not failed."""
        ...

    async def expired(self, before: float) -> list[str]:
        """Closed jobs that ended before this moment. `forget` them once their files are removed."""
        ...

    async def forget(self, job_id: str) -> None:
        """Remove a closed job."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
