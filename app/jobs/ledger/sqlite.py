"""The job ledger of a single process: SQLite in WAL mode, so that accepted jobs survive a restart or kill -9."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from scpalm.app.jobs.ledger.ledger import DIED, MAX_DEATHS, STATES, Job, LedgerVersionError, State

# Stored as PRAGMA user_version. Releases without versions left it at 0.
VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    idempotency_key TEXT,
    manifest TEXT NOT NULL,
    model TEXT NOT NULL DEFAULT '',
    deaths INTEGER NOT NULL DEFAULT 0,
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
_COLUMNS = (
    "id, owner, fingerprint, manifest, state, attempt, rows, rows_done, error, created, started, ended, model, deaths"
)


class SqliteLedger:
    """Implements `scpalm.app.jobs.ledger.ledger.Ledger`. Thread-safe, but for one process at a time.

    Raises LedgerVersionError if a newer release wrote the file, or if it is not a ledger.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LedgerVersionError(
                f"{path} is not a job ledger ({error}). Move it away, or set another folder with SCPALM_RESULTS_DIR."
            ) from error
        except LedgerVersionError:
            self._connection.close()
            raise

    def _open(self, path: Path) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= VERSION:
            raise LedgerVersionError(
                f"The job ledger {path} has version {version}; this release reads up to {VERSION}. Update scpalm, or "
                "set another folder with SCPALM_RESULTS_DIR."
            )
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
        columns = {row[1] for row in self._connection.execute("PRAGMA table_info(jobs)")}
        for column, kind in (("model", "TEXT NOT NULL DEFAULT ''"), ("deaths", "INTEGER NOT NULL DEFAULT 0")):
            if column not in columns:  # early ledgers of version 0 lack it
                self._connection.execute(f"ALTER TABLE jobs ADD COLUMN {column} {kind}")
        self._connection.execute(f"PRAGMA user_version = {VERSION}")

    async def close(self) -> None:
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

    async def add(self, job_id: str, owner: str, fingerprint: str, key: str | None, manifest: str, model: str) -> Job:
        with self._transaction() as db:
            known = self._known(db, owner, fingerprint, key)
            if known is None:
                db.execute(
                    "INSERT INTO jobs (id, owner, fingerprint, idempotency_key, manifest, model, state, created) "
                    "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?)",
                    (job_id, owner, fingerprint, key, manifest, model, time.time()),
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

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        with self._transaction() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        job = None if row is None else _job(row)
        return job if job is not None and owner in (None, job.owner) else None

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE ? IS NULL OR owner = ? ORDER BY created DESC LIMIT ?",
                (owner, owner, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    async def counts(self) -> dict[State, int]:
        with self._transaction() as db:
            found = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    async def take(self, models: Sequence[str]) -> Job | None:
        # Take jobs of all models: the runner fails a job whose model is gone, instead of leaving it queued.
        with self._transaction() as db:
            row = db.execute(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = ? WHERE id = "
                f"(SELECT id FROM jobs WHERE state = 'queued' ORDER BY created LIMIT 1) RETURNING {_COLUMNS}",
                (time.time(),),
            ).fetchone()
        return None if row is None else _job(row)

    async def renew(self, job: Job) -> bool:
        now = await self.get(job.id)
        return now is not None and now.state == "running" and now.attempt == job.attempt

    def requeue_running(self) -> int:
        """At startup, queue the jobs that a dead process left running, and fail those with too many deaths.

        Returns the number of queued jobs.
        """
        with self._transaction() as db:
            db.execute("UPDATE jobs SET deaths = deaths + 1 WHERE state = 'running'")
            db.execute(
                "UPDATE jobs SET state = 'failed', error = ?, ended = ? WHERE state = 'running' AND deaths >= ?",
                (DIED, time.time(), MAX_DEATHS),
            )
            return db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount

    async def set_rows(self, job: Job, rows: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE jobs SET rows = ? WHERE id = ? AND attempt = ?", (rows, job.id, job.attempt))

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET rows_done = rows_done + ?, deaths = 0 "
                "WHERE id = ? AND attempt = ? AND state = 'running' "
                "AND NOT EXISTS (SELECT 1 FROM chunks WHERE job = ? AND number = ?)",
                (rows, job.id, job.attempt, job.id, number),
            ).rowcount
            if changed:
                db.execute("INSERT INTO chunks (job, number, rows) VALUES (?, ?, ?)", (job.id, number, rows))
            return bool(changed)

    async def chunks(self, job: Job) -> set[int]:
        with self._transaction() as db:
            return {int(row[0]) for row in db.execute("SELECT number FROM chunks WHERE job = ?", (job.id,))}

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        with self._transaction() as db:
            ended = None if state == "queued" else time.time()
            return bool(
                db.execute(
                    "UPDATE jobs SET state = ?, error = ?, ended = ? "
                    "WHERE id = ? AND attempt = ? AND state IN ('queued', 'running')",
                    (state, error, ended, job.id, job.attempt),
                ).rowcount
            )

    async def cancel(self, job_id: str) -> bool:
        with self._transaction() as db:
            return bool(
                db.execute(
                    "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state IN ('queued', 'running')",
                    (time.time(), job_id),
                ).rowcount
            )

    async def dead(self, limit: int = 100) -> list[Job]:
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE state = 'failed' AND deaths >= ? ORDER BY ended DESC LIMIT ?",
                (MAX_DEATHS, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    async def replay(self, job_id: str) -> bool:
        with self._transaction() as db:
            return bool(
                db.execute(
                    "UPDATE jobs SET state = 'queued', error = NULL, ended = NULL, deaths = 0 "
                    "WHERE id = ? AND state = 'failed'",
                    (job_id,),
                ).rowcount
            )

    async def expired(self, before: float) -> list[str]:
        with self._transaction() as db:
            rows = db.execute("SELECT id FROM jobs WHERE ended IS NOT NULL AND ended < ?", (before,)).fetchall()
        return [str(row[0]) for row in rows]

    async def forget(self, job_id: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", (job_id,))


def _job(row: tuple[object, ...]) -> Job:
    return Job(*cast("tuple[str, str, str, str, State, int, int, int, str, float, float, float, str, int]", row))
