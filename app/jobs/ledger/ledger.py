"""The ledger of jobs: what was accepted, who runs it, and which of its chunks are done. One Protocol, two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")
# A job that so many processes died with in hand, without a chunk done in between, is not given to another.
MAX_DEATHS = 3
DIED = "{deaths} processes died with this job in hand. Send its cells in smaller files."


@dataclass(frozen=True)
class Job:
    """One job as it stands.

    Attributes:
        id, owner: of whoever holds the same API key. fingerprint: of body, options and model.
        manifest: JSON of `scpalm.app.jobs.manifest.Manifest`. attempt: how often it was started.
        rows: cells in all, once known. rows_done: of committed chunks. error: one line.
        created, started, ended: seconds since the epoch. model: checksum of the model that it was sent to.
        deaths: how many processes died with it since its last chunk.
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
    """Each method is one transaction. Those of a ledger elsewhere raise NotReadyError or StorageFullError."""

    async def add(self, job_id: str, owner: str, fingerprint: str, key: str | None, manifest: str, model: str) -> Job:
        """A new job; or the one that the key, or else the fingerprint, already names and that has not failed."""
        ...

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job, if it is ``owner``'s (None: anybody's)."""
        ...

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        """The latest jobs of an owner (None: of everybody)."""
        ...

    async def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        ...

    async def take(self, models: Sequence[str]) -> Job | None:
        """Start the oldest queued job of these models, or one whose process is gone.

        Its new attempt number shuts out whoever ran it before.
        """
        ...

    async def keep(self, job: Job) -> bool:
        """Say that this attempt goes on, at least three times a lease. False when it no longer counts."""
        ...

    async def set_rows(self, job: Job, rows: int) -> None:
        """Note how many cells the job has."""
        ...

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        """Point at a chunk that is safely kept. False when this attempt is no longer the one that counts."""
        ...

    async def chunks(self, job: Job) -> set[int]:
        """Numbers of the committed chunks."""
        ...

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        """Close a job; ``queued`` puts it back. False when it is closed already or another attempt runs."""
        ...

    async def cancel(self, job_id: str) -> bool:
        """Close an open job, whoever runs it. False when it is closed already."""
        ...

    async def dead(self, limit: int = 100) -> list[Job]:
        """The latest jobs that failed because processes died with them in hand."""
        ...

    async def replay(self, job_id: str) -> bool:
        """Put a failed job back into the queue; what it has done stays done. False where it has not failed."""
        ...

    async def expired(self, before: float) -> list[str]:
        """Closed jobs that ended before this moment; `forget` them when their files are gone."""
        ...

    async def forget(self, job_id: str) -> None:
        """Remove a closed job."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...
