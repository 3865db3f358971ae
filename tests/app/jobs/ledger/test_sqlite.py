"""What is special about the ledger in SQLite: one process, one file, earlier versions of it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from scpalm.app.jobs.ledger.ledger import MAX_DEATHS, LedgerVersionError
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from tests.app.jobs.ledger.ledgers import add, take


def test_committed_chunks_survive_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = SqliteLedger(tmp_path / "jobs.sqlite")
        await add(first, "a", owner="owner")
        await first.commit_chunk(await take(first), 0, 7)
        # Not closed, as after a kill.
        second = SqliteLedger(tmp_path / "jobs.sqlite")
        again = await second.get("a", "owner")
        assert again is not None and again.rows_done == 7 and again.state == "running"
        assert second.requeue_running() == 1
        assert (await take(second)).attempt == 2
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_a_job_that_kills_every_process_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        for death in range(MAX_DEATHS):
            ledger = SqliteLedger(tmp_path / "jobs.sqlite")
            if death == 0:
                await add(ledger, "a")
            else:
                assert ledger.requeue_running() == 1
            await take(ledger)
            await ledger.close()
        ledger = SqliteLedger(tmp_path / "jobs.sqlite")
        assert ledger.requeue_running() == 0
        job = await ledger.get("a")
        assert job is not None and job.state == "failed" and "died" in str(job.error)
        await ledger.close()

    asyncio.run(scenario())


def test_a_ledger_of_the_previous_release_is_read(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, fingerprint TEXT NOT NULL, idempotency_key TEXT, "
        "manifest TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, rows INTEGER, "
        "rows_done INTEGER NOT NULL DEFAULT 0, error TEXT, created REAL NOT NULL, started REAL, ended REAL, "
        "UNIQUE (owner, idempotency_key))"
    )
    database.execute(
        "INSERT INTO jobs (id, owner, fingerprint, manifest, state, created) VALUES ('a', '', 'a', '{}', 'queued', 1)"
    )
    database.commit()
    database.close()

    async def scenario() -> None:
        ledger = SqliteLedger(tmp_path / "jobs.sqlite")
        assert (await take(ledger)).id == "a"
        await ledger.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [3, -1])
def test_a_ledger_of_a_newer_release_is_refused(tmp_path: Path, version: int) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(LedgerVersionError, match=f"version {version}.*reads up to 2.*SCPALM_RESULTS_DIR"):
        SqliteLedger(tmp_path / "jobs.sqlite")


def test_a_file_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerVersionError, match="is not a job ledger"):
        SqliteLedger(tmp_path / "jobs.sqlite")
