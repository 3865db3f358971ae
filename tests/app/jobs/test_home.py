from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.home import LEDGER_FILE, JobHome, open_home
from scpalm.app.jobs.ledger.ledger import LedgerVersionError
from scpalm.app.settings import Settings


def folder_of(home: JobHome) -> Path:
    """The folder with the files of jobs."""
    files = home.files_of("job")
    files.write("name", b"")
    with files.local("name", Path("/nowhere")) as path:
        return path.parents[1]


def test_a_second_service_uses_a_temporary_folder_unless_one_is_set(tmp_path: Path) -> None:
    first, second = (open_home(Settings(spool_dir=tmp_path)) for _ in range(2))
    assert folder_of(first) == tmp_path / "scpalm-jobs"
    assert folder_of(second).parent == tmp_path and folder_of(second) != folder_of(first)
    with pytest.raises(JobStorageError, match="SCPALM_RESULTS_DIR"):
        open_home(Settings(spool_dir=tmp_path, results_dir=tmp_path / "scpalm-jobs"))
    asyncio.run(first.close())
    third = open_home(Settings(spool_dir=tmp_path))
    assert folder_of(third) == tmp_path / "scpalm-jobs", "closing unlocks the folder"
    for home in (second, third):
        asyncio.run(home.close())


def test_a_ledger_of_a_newer_release_prevents_startup_and_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "scpalm-jobs").mkdir()
    path = tmp_path / "scpalm-jobs" / LEDGER_FILE
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    for _ in range(2):  # the second time shows that the folder was unlocked
        with pytest.raises(LedgerVersionError, match="version 99"):
            open_home(Settings(spool_dir=tmp_path))
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
