"""The interface of a job ledger, and the rules that both implementations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from scpalm.app.errors import IdempotencyError, NotReadyError
from scpalm.app.queue.transport import MAX_DELIVERIES

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")
# After this many deaths a job becomes a dead letter, as work in the queue does. A committed chunk resets the count.
MAX_DEATHS = MAX_DELIVERIES
DIED = f"{MAX_DEATHS} processes died while running this job. Send its cells in smaller files."


class LedgerVersionError(NotReadyError):
    """This release cannot read the ledger: a newer release wrote it, or it is damaged. The message says what to do."""


@dataclass(frozen=True)
class Job:
    """A snapshot of a job.

    Attributes:
        id: id of the job.
        owner: name of the API key that sent it; "" for none.
        fingerprint: hash of body, options and model.
        manifest: JSON of `scpalm.app.jobs.manifest.Manifest`.
        state: state of the job.
        attempt: how often it was started.
        rows: number of cells, once known.
        rows_done: number of cells in committed chunks.
        error: why it failed, in one line.
        created: when it was accepted, in seconds since the epoch.
        started: when it was last started, in seconds since the epoch.
        ended: when it ended, in seconds since the epoch.
        model: checksum of the model that it was sent to.
        deaths: how many processes died while running it, since its last committed chunk.
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


@dataclass(frozen=True)
class Submission:
    """What distinguishes one request for a job from another.

    Attributes:
        owner: name of the API key that sent it; "" for none.
        fingerprint: hash of body, options and model. Two requests with the same one have the same result.
        request: hash of body and options, without the model: what an idempotency key stands for.
        key: its ``Idempotency-Key``, or None.
    """

    owner: str
    fingerprint: str
    request: str
    key: str | None = None


def key_is_taken() -> IdempotencyError:
    """The error for a key that was used with another body or other options."""
    return IdempotencyError(
        "This key was already used for another request: the body or an option differs. Use a new key for this one.",
        field="Idempotency-Key",
    )


class Ledger(Protocol):
    """The ledger of all jobs. Each method is one transaction.

    Raises NotReadyError if the ledger cannot be reached or is locked, StorageFullError if it is full, and
    LedgerVersionError if a newer release wrote it.
    """

    async def find(self, submission: Submission) -> Job | None:
        """The owner's job for the same request, if there is one; its key, if new, stands for that job from now on.

        A job is found by its key, also after the model was replaced, or by its fingerprint. Jobs that failed or were
        cancelled are not found. Raises IdempotencyError if the key stands for another request.
        """
        ...

    async def add(self, job_id: str, submission: Submission, manifest: str, model: str) -> Job:
        """Accept a job, unless `find` finds one: then it is returned. Safe to repeat with the same ``job_id``.

        Raises IdempotencyError.
        """
        ...

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """The job, if it exists and belongs to ``owner`` (None: any owner)."""
        ...

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        """The most recent jobs of ``owner`` (None: all owners), newest first."""
        ...

    async def counts(self) -> dict[State, int]:
        """Number of jobs in each state."""
        ...

    async def take(self, models: Sequence[str]) -> Job | None:
        """Start a job of one of these models: first one with an expired lease, otherwise the oldest queued one.

        The new attempt number fences off the previous holder.
        """
        ...

    async def renew(self, job: Job) -> bool:
        """Renew the lease; call it RENEWALS_PER_LEASE times per lease. False if the attempt was fenced off."""
        ...

    async def set_rows(self, job: Job, rows: int) -> None:
        """Record the number of cells of the job."""
        ...

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        """Record a stored chunk and renew the lease. False if the chunk is known or the attempt was fenced off."""
        ...

    async def chunks(self, job: Job) -> set[int]:
        """The numbers of the committed chunks."""
        ...

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        """End a job, or put it back with ``queued``. False if it has already ended, or the attempt was fenced off."""
        ...

    async def cancel(self, job_id: str) -> bool:
        """Cancel an open job, no matter which process runs it. False if it has already ended."""
        ...

    async def dead(self, limit: int = 100) -> list[Job]:
        """The most recent dead letters: jobs that failed because their processes died."""
        ...

    async def replay(self, job_id: str) -> bool:
        """Put a failed job back into the queue, keeping its committed chunks. False if it has not failed."""
        ...

    async def expired(self, before: float) -> list[str]:
        """The jobs that ended before this time. Remove their files, then `forget` them."""
        ...

    async def forget(self, job_id: str) -> None:
        """Remove a job that has ended from the ledger."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
