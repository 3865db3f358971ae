"""The ledger of jobs: SQLite in WAL mode, so that what was accepted survives a restart, also a kill -9."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("queued", "running")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    idempotency_key TEXT,
    manifest TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    rows INTEGER,
    rows_done INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX IF NOT EXISTS jobs_by_fingerprint ON jobs (owner, fingerprint);
CREATE TABLE IF NOT EXISTS chunks (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (job, number)
);
"""
_COLUMNS = "id, owner, fingerprint, manifest, state, attempt, rows, rows_done, error, created, started, ended"


@dataclass(frozen=True)
class Job:
    """One job as it stands.

    Attributes:
        id, owner: of whoever holds the same API key. fingerprint: of body, options and model.
        manifest: JSON of `app.jobs.manifest.Manifest`. attempt: how often it was started.
        rows: cells in all, once known. rows_done: of committed chunks. error: one line.
        created, started, ended: seconds since the epoch.
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


class Ledger:
    """Safe between threads; every method is one transaction."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def add(self, job_id: str, owner: str, fingerprint: str, key: str | None, manifest: str) -> Job:
        """A new job; or the one that the key, or else the fingerprint, already names and that has not failed."""
        with self._transaction() as db:
            known = self._known(db, owner, fingerprint, key)
            if known is None:
                db.execute(
                    "INSERT INTO jobs (id, owner, fingerprint, idempotency_key, manifest, state, created) "
                    "VALUES (?, ?, ?, ?, ?, 'queued', ?)",
                    (job_id, owner, fingerprint, key, manifest, time.time()),
                )
                known = _job(db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone())
            return known

    def _known(self, db: sqlite3.Connection, owner: str, fingerprint: str, key: str | None) -> Job | None:
        if key is not None:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND idempotency_key = ?", (owner, key)
            ).fetchone()
            if row is not None:
                return _job(row)
        row = db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND fingerprint = ? AND state NOT IN ('failed', 'cancelled')",
            (owner, fingerprint),
        ).fetchone()
        return None if row is None else _job(row)

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job, if it is ``owner``'s (None: anybody's)."""
        with self._transaction() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        job = None if row is None else _job(row)
        return job if job is not None and owner in (None, job.owner) else None

    def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        """The latest jobs of an owner (None: of everybody)."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE ? IS NULL OR owner = ? ORDER BY created DESC LIMIT ?",
                (owner, owner, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._transaction() as db:
            found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def take(self) -> Job | None:
        """Start the oldest queued job; its new attempt number shuts out whoever ran it before."""
        with self._transaction() as db:
            row = db.execute(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = ? WHERE id = "
                f"(SELECT id FROM jobs WHERE state = 'queued' ORDER BY created LIMIT 1) RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    def requeue_running(self) -> int:
        """At start: jobs that a dead process left running wait again."""
        with self._transaction() as db:
            return db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount

    def set_rows(self, job: Job, rows: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE jobs SET rows = ? WHERE id = ? AND attempt = ?", (rows, job.id, job.attempt))

    def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        """Point at a chunk that is safely on disk. False when this attempt is no longer the one that counts."""
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET rows_done = rows_done + ? WHERE id = ? AND attempt = ? AND state = 'running' "
                "AND NOT EXISTS (SELECT 1 FROM chunks WHERE job = ? AND number = ?)",
                (rows, job.id, job.attempt, job.id, number),
            ).rowcount
            if changed:
                db.execute("INSERT INTO chunks (job, number, rows) VALUES (?, ?, ?)", (job.id, number, rows))
            return bool(changed)

    def chunks(self, job: Job) -> set[int]:
        """Numbers of the committed chunks."""
        with self._transaction() as db:
            return {int(row[0]) for row in db.execute("SELECT number FROM chunks WHERE job = ?", (job.id,))}

    def end(self, job: Job, state: State, error: str | None = None) -> bool:
        """Close an open job; ``queued`` puts it back. False when it is closed already or another attempt runs."""
        with self._transaction() as db:
            ended = None if state == "queued" else time.time()
            return bool(
                db.execute(
                    "UPDATE jobs SET state = ?, error = ?, ended = ? "
                    "WHERE id = ? AND attempt = ? AND state IN ('queued', 'running')",
                    (state, error, ended, job.id, job.attempt),
                ).rowcount
            )

    def expire(self, before: float) -> list[str]:
        """Forget closed jobs that ended before this moment; their ids."""
        with self._transaction() as db:
            rows = db.execute(
                "DELETE FROM jobs WHERE ended IS NOT NULL AND ended < ? RETURNING id", (before,)
            ).fetchall()
        return [str(row[0]) for row in rows]


def _job(row: tuple[object, ...]) -> Job:
    return Job(*cast("tuple[str, str, str, str, State, int, int, int, str, float, float, float]", row))
