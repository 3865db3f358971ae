"""The SQLite file behind a job ledger. Queries run in two threads, so that the event loop never waits for the file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from scpalm.app.errors import JobStorageError, NotReadyError, ServiceError, StorageFullError
from scpalm.app.jobs.ledger.ledger import LedgerVersionError

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]

# Stored as PRAGMA user_version. Releases without versions left it at 0. Version 1 had one key per job, in `jobs`.
VERSION = 2
# How long a write waits for another process that holds the lock, such as a backup.
BUSY_SECONDS = 2.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL DEFAULT '',
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
    ended REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_fingerprint ON jobs (owner, fingerprint);
CREATE TABLE IF NOT EXISTS keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, key)
);
CREATE INDEX IF NOT EXISTS keys_by_job ON keys (job);
CREATE TABLE IF NOT EXISTS chunks (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (job, number)
);
"""
# Columns that early ledgers lack.
_LATER_COLUMNS = {
    "model": "TEXT NOT NULL DEFAULT ''",
    "deaths": "INTEGER NOT NULL DEFAULT 0",
    "request": "TEXT NOT NULL DEFAULT ''",
}
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class SqliteDatabase:
    """One file in WAL mode, for one process at a time and tools such as `scpalm jobs`.

    Reads have their own thread and connection: they take no lock, and go on while a write waits for one.

    Args:
        path: the file.
        busy_seconds: how long a write waits for the lock.

    Raises LedgerVersionError if a newer release wrote the file, or if it is not a ledger.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._closed = False
        self._writes = _connect(path, busy_seconds)
        try:
            self._prepare()
            self._reads = _connect(path, busy_seconds)
        except sqlite3.DatabaseError as error:
            self._writes.close()
            if _code(error) in (*_LOCKED, *_DISK, sqlite3.SQLITE_FULL):
                raise self._service_error(error) from error
            raise LedgerVersionError(
                f"{path} is not a job ledger ({error}). Move it away, or set another folder with SCPALM_RESULTS_DIR."
            ) from error
        except LedgerVersionError:
            self._writes.close()
            raise
        self._reads.execute("PRAGMA query_only = ON")
        self._writer, self._reader = (ThreadPoolExecutor(1, f"ledger-{name}") for name in ("writes", "reads"))

    def _prepare(self) -> None:
        db = self._writes
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= VERSION:
            raise LedgerVersionError(
                f"The job ledger {self._path} has version {version}; this release reads up to {VERSION}. Update "
                "scpalm, or set another folder with SCPALM_RESULTS_DIR."
            )
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        if version == VERSION:  # write nothing: `scpalm jobs` opens the ledger of a running service
            return
        db.executescript(_SCHEMA)
        columns = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
        for column, kind in _LATER_COLUMNS.items():
            if column not in columns:
                db.execute(f"ALTER TABLE jobs ADD COLUMN {column} {kind}")
        if "idempotency_key" in columns:
            db.execute(
                "INSERT OR IGNORE INTO keys SELECT owner, idempotency_key, id FROM jobs WHERE idempotency_key NOT NULL"
            )
        db.execute(f"PRAGMA user_version = {VERSION}")

    async def read(self, query: Query[T]) -> T:
        """Run a query that changes nothing."""
        return await self._run(self._reader, partial(query, self._reads))

    async def write(self, change: Query[T]) -> T:
        """Run a change, as a whole or not at all."""
        return await self._run(self._writer, partial(_in_transaction, self._writes, change))

    def write_now(self, change: Query[T]) -> T:
        """`write`, blocking."""
        return self._writer.submit(self._guarded, partial(_in_transaction, self._writes, change)).result()

    async def close(self) -> None:
        """Finish what runs, and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for thread, connection in ((self._reader, self._reads), (self._writer, self._writes)):
            thread.submit(connection.close).result()
            thread.shutdown()

    async def _run(self, thread: Executor, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, self._guarded, query)

    def _guarded(self, query: Callable[[], T]) -> T:
        try:
            return query()
        except sqlite3.Error as error:
            raise self._service_error(error) from error

    def _service_error(self, error: sqlite3.Error) -> ServiceError:
        code = _code(error)
        if code in _LOCKED:
            return NotReadyError(
                f"The job ledger {self._path} is locked by another process, such as a backup. Try again in a moment.",
                retry_after=5,
            )
        if code == sqlite3.SQLITE_FULL:
            return StorageFullError(
                "The disk of the job ledger (SCPALM_RESULTS_DIR) is full. Try again later.", retry_after=10
            )
        if code in _DISK:
            return NotReadyError(f"The job ledger {self._path} cannot be read or written: {error}.", retry_after=10)
        return JobStorageError(f"The job ledger {self._path} failed: {error}.")


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # Each connection is used by one thread at a time: first by the one that opens it, then by its own.
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=busy_seconds)


def _in_transaction(db: sqlite3.Connection, change: Query[T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = change(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already; one that cannot be committed is still open
            db.execute("ROLLBACK")
        raise
    return result


def _code(error: sqlite3.Error) -> int:
    """The primary result code: the extended one has details in its upper bits."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
