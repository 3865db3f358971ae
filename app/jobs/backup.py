"""Copy the jobs of a running service: its SQLite ledger and the files of its jobs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from scpalm.app.errors import JobStorageError

_PAGES = 256  # copied at a time; between them the service can write


def back_up(source: Path, target: Path, ledger_name: str) -> int:
    """Copy the jobs in ``source`` into the new folder ``target``, and return how many there are.

    The ledger is copied first. So every chunk of results that it lists is complete on disk, and a service that starts
    with ``target`` as its SCPALM_RESULTS_DIR computes the others again.

    Raises JobStorageError: ``target`` exists or a copy failed.
    """
    try:
        target.mkdir(parents=True)
    except OSError as error:
        raise JobStorageError(f"The folder {target} cannot be made ({error.strerror}). Name a new folder.") from error
    try:
        with (
            closing(sqlite3.connect(f"file:{source / ledger_name}?mode=ro", uri=True)) as ledger,
            closing(sqlite3.connect(target / ledger_name)) as copy,
        ):
            ledger.backup(copy, pages=_PAGES)
            ids = [str(row[0]) for row in copy.execute("SELECT id FROM jobs")]
        for job in ids:
            # Job may have expired since, or have no files yet.
            if (source / job).is_dir():
                shutil.copytree(source / job, target / job, ignore_dangling_symlinks=True)
    except (OSError, shutil.Error, sqlite3.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise JobStorageError(f"The jobs in {source} could not be copied to {target}: {error}") from error
    return len(ids)
