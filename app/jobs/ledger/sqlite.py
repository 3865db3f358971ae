"""The job ledger of a single process: in SQLite, so that accepted jobs survive a restart or kill -9."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from scpalm.app.jobs.ledger.ledger import (
    DIED,
    MAX_DEATHS,
    STATES,
    Job,
    State,
    Submission,
    key_is_taken,
)
from scpalm.app.jobs.ledger.sqlite_database import BUSY_SECONDS, SqliteDatabase

_COLUMNS = (
    "id, owner, fingerprint, manifest, state, attempt, rows, rows_done, error, created, started, ended, model, deaths"
)


class SqliteLedger:
    """Implements `scpalm.app.jobs.ledger.ledger.Ledger`, for one process at a time.

    Raises LedgerVersionError if a newer release wrote the file, or if it is not a ledger.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._database = SqliteDatabase(path, busy_seconds)

    async def close(self) -> None:
        await self._database.close()

    async def find(self, submission: Submission) -> Job | None:
        # Most requests have no new key to record, so they need no lock.
        found, recorded = await self._database.read(lambda db: (_find(db, submission), _job_of_key(db, submission)))
        if found is None or submission.key is None or recorded == found.id:
            return found
        return await self._database.write(lambda db: _known(db, submission))

    async def add(self, job_id: str, submission: Submission, manifest: str, model: str) -> Job:
        def change(db: sqlite3.Connection) -> Job:
            known = _known(db, submission)
            if known is not None:
                return known
            db.execute(
                "INSERT INTO jobs (id, owner, fingerprint, request, manifest, model, state, created) "
                "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?)",
                (job_id, submission.owner, submission.fingerprint, submission.request, manifest, model, time.time()),
            )
            _record_key(db, submission, job_id)
            return _one(db, "id = ?", job_id)

        return await self._database.write(change)

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        job = await self._database.read(lambda db: _first(db, "id = ?", job_id))
        return job if job is not None and owner in (None, job.owner) else None

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        condition = "? IS NULL OR owner = ? ORDER BY created DESC LIMIT ?"
        return await self._database.read(lambda db: _jobs(db, condition, owner, owner, limit))

    async def counts(self) -> dict[State, int]:
        query = "SELECT state, count(*) FROM jobs GROUP BY state"
        found = await self._database.read(lambda db: dict(db.execute(query).fetchall()))
        return {state: int(found.get(state, 0)) for state in STATES}

    async def take(self, models: Sequence[str]) -> Job | None:
        # Look first: a write needs the lock, and an idle runner asks often.
        if await self._database.read(lambda db: _first(db, "state = 'queued' LIMIT 1")) is None:
            return None

        # Take jobs of all models: the runner fails a job whose model is gone, instead of leaving it queued.
        def change(db: sqlite3.Connection) -> Job | None:
            row = db.execute(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = ? WHERE id = "
                f"(SELECT id FROM jobs WHERE state = 'queued' ORDER BY created LIMIT 1) RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
            return None if row is None else _job(row)

        return await self._database.write(change)

    async def renew(self, job: Job) -> bool:
        now = await self.get(job.id)
        return now is not None and now.state == "running" and now.attempt == job.attempt

    def requeue_running(self) -> int:
        """At startup, queue the jobs that a dead process left running, and fail those with too many deaths.

        Returns the number of queued jobs.
        """

        def change(db: sqlite3.Connection) -> int:
            db.execute("UPDATE jobs SET deaths = deaths + 1 WHERE state = 'running'")
            db.execute(
                "UPDATE jobs SET state = 'failed', error = ?, ended = ? WHERE state = 'running' AND deaths >= ?",
                (DIED, time.time(), MAX_DEATHS),
            )
            return db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount

        return self._database.write_now(change)

    async def set_rows(self, job: Job, rows: int) -> None:
        await self._changes("UPDATE jobs SET rows = ? WHERE id = ? AND attempt = ?", rows, job.id, job.attempt)

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE jobs SET rows_done = rows_done + ?, deaths = 0 "
                "WHERE id = ? AND attempt = ? AND state = 'running' "
                "AND NOT EXISTS (SELECT 1 FROM chunks WHERE job = ? AND number = ?)",
                (rows, job.id, job.attempt, job.id, number),
            ).rowcount
            if changed:
                db.execute("INSERT INTO chunks (job, number, rows) VALUES (?, ?, ?)", (job.id, number, rows))
            return bool(changed)

        return await self._database.write(change)

    async def chunks(self, job: Job) -> set[int]:
        query = "SELECT number FROM chunks WHERE job = ?"
        return await self._database.read(lambda db: {int(row[0]) for row in db.execute(query, (job.id,))})

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        return await self._changes(
            "UPDATE jobs SET state = ?, error = ?, ended = ? "
            "WHERE id = ? AND attempt = ? AND state IN ('queued', 'running')",
            state,
            error,
            None if state == "queued" else time.time(),
            job.id,
            job.attempt,
        )

    async def cancel(self, job_id: str) -> bool:
        return await self._changes(
            "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state IN ('queued', 'running')",
            time.time(),
            job_id,
        )

    async def dead(self, limit: int = 100) -> list[Job]:
        condition = "state = 'failed' AND deaths >= ? ORDER BY ended DESC LIMIT ?"
        return await self._database.read(lambda db: _jobs(db, condition, MAX_DEATHS, limit))

    async def replay(self, job_id: str) -> bool:
        return await self._changes(
            "UPDATE jobs SET state = 'queued', error = NULL, ended = NULL, deaths = 0 "
            "WHERE id = ? AND state = 'failed'",
            job_id,
        )

    async def expired(self, before: float) -> list[str]:
        found = await self._database.read(lambda db: _jobs(db, "ended IS NOT NULL AND ended < ?", before))
        return [job.id for job in found]

    async def forget(self, job_id: str) -> None:
        await self._changes("DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", job_id)

    async def _changes(self, statement: str, *values: object) -> bool:
        """Whether a statement changed a row."""
        return await self._database.write(lambda db: bool(db.execute(statement, values).rowcount))


def _job(row: tuple[object, ...]) -> Job:
    return Job(*cast("tuple[str, str, str, str, State, int, int, int, str, float, float, float, str, int]", row))


def _jobs(db: sqlite3.Connection, condition: str, *values: object) -> list[Job]:
    return [_job(row) for row in db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {condition}", values).fetchall()]


def _first(db: sqlite3.Connection, condition: str, *values: object) -> Job | None:
    return next(iter(_jobs(db, condition, *values)), None)


def _one(db: sqlite3.Connection, condition: str, *values: object) -> Job:
    (job,) = _jobs(db, condition, *values)
    return job


def _job_of_key(db: sqlite3.Connection, submission: Submission) -> str:
    """Id of the job that the key stands for, or ""."""
    row = db.execute("SELECT job FROM keys WHERE owner = ? AND key = ?", (submission.owner, submission.key)).fetchone()
    return "" if row is None else str(row[0])


def _find(db: sqlite3.Connection, submission: Submission) -> Job | None:
    """The job of the same request that did not fail. Raises IdempotencyError."""
    if job_id := _job_of_key(db, submission):
        job = _one(db, "id = ?", job_id)
        (request,) = db.execute("SELECT request FROM jobs WHERE id = ?", (job_id,)).fetchone()
        # Version 1 did not record the request.
        if submission.request != request and (request or submission.fingerprint != job.fingerprint):
            raise key_is_taken()
        if job.state not in ("failed", "cancelled"):
            return job
    condition = "owner = ? AND fingerprint = ? AND state NOT IN ('failed', 'cancelled')"
    return _first(db, condition, submission.owner, submission.fingerprint)


def _known(db: sqlite3.Connection, submission: Submission) -> Job | None:
    job = _find(db, submission)
    if job is not None:
        _record_key(db, submission, job.id)
    return job


def _record_key(db: sqlite3.Connection, submission: Submission, job_id: str) -> None:
    if submission.key is not None:
        db.execute(
            "INSERT INTO keys (owner, key, job) VALUES (?, ?, ?) ON CONFLICT (owner, key) DO UPDATE SET job = ?",
            (submission.owner, submission.key, job_id, job_id),
        )
