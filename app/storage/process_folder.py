"""The folder of one process for temporary files. What a killed process has left is removed by the next one."""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from pathlib import Path
from typing import IO
from uuid import uuid4

from scpalm.app.storage.old_leftovers import remove_old_leftovers

log = logging.getLogger("scpalm.storage")

_PREFIX, _LOCK = "scpalm-process-", "-lock"
# A lock without a folder: its process is starting, or was killed in that moment.
_KEEP_LOCK_SECONDS = 3600.0


class ProcessFolder:
    """A folder in ``parent`` that exists from `open` to `close`, however the process ends.

    A lock file next to it, locked before the folder is made, tells other processes that its owner lives.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: Path) -> None:
        self.path = parent / f"{_PREFIX}{uuid4().hex}"
        self._lock: IO[bytes] | None = None

    def open(self) -> int:
        """Make the folder, and remove the folders of dead processes; returns how many. Blocking. Raises OSError."""
        self._lock = _lock_of(self.path).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path.mkdir(mode=0o700)
        return _sweep(self.path.parent) + remove_old_leftovers(self.path.parent)

    def close(self) -> None:
        """Remove the folder with its content. Blocking."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            _lock_of(self.path).unlink(missing_ok=True)
            self._lock.close()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _sweep(parent: Path) -> int:
    removed = 0
    for folder in parent.glob(f"{_PREFIX}*"):
        if folder.name.endswith(_LOCK):
            continue
        try:
            with _lock_of(folder).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)
        except OSError:  # its process lives, or another one removes it now
            continue
        removed += 1
        log.info("removed %s, which a killed process had left", folder)
    for lock_file in parent.glob(f"{_PREFIX}*{_LOCK}"):
        folder = lock_file.with_name(lock_file.name.removesuffix(_LOCK))
        try:
            if not folder.exists() and time.time() - lock_file.stat().st_mtime > _KEEP_LOCK_SECONDS:
                lock_file.unlink()
        except FileNotFoundError:
            continue
    return removed
