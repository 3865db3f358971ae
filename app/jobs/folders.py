"""The folders of all jobs, in a local folder or in the spool that all processes share."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Protocol

from scpalm.app.jobs.files import JobFiles, LocalJobFiles, SpoolJobFiles
from scpalm.app.storage.spool import Spool

# Ids of jobs are random; anything else in the same place is not ours.
_ID = re.compile(r"[0-9a-f]{32}")


class JobFolders(Protocol):
    """Where the files of jobs are."""

    def of(self, job_id: str) -> JobFiles:
        """The files of a job."""
        ...

    def older_than(self, seconds: float) -> list[str]:
        """Ids of the jobs that have had files for at least this long. Blocking. Raises what JobFiles raise."""
        ...


class LocalJobFolders:
    """One folder per job in a local or mounted folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, job_id: str) -> JobFiles:
        return LocalJobFiles(self._folder / job_id)

    def older_than(self, seconds: float) -> list[str]:
        before, found = time.time() - seconds, []
        for path in self._folder.glob("*"):
            try:
                if _ID.fullmatch(path.name) and path.stat().st_mtime <= before:
                    found.append(path.name)
            except FileNotFoundError:  # another process removed it
                continue
        return found


class SpoolJobFolders:
    """One prefix per job in an object store."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def of(self, job_id: str) -> JobFiles:
        return SpoolJobFiles(self._spool, job_id)

    def older_than(self, seconds: float) -> list[str]:
        filesystem, root = self._spool.filesystem
        before, found = time.time() - seconds, []
        with self.of("").guarded():
            filesystem.invalidate_cache()
            if not filesystem.exists(f"{root}/jobs"):
                return []
            for path in filesystem.ls(f"{root}/jobs", detail=False):
                name = str(path).rstrip("/").rpartition("/")[2]
                # Prefixes have no time of their own. The body is written first.
                entries = filesystem.ls(path, detail=True) if _ID.fullmatch(name) else []
                times = [entry.get("LastModified") or entry.get("mtime") or entry.get("created") for entry in entries]
                seen = [moment.timestamp() if isinstance(moment, datetime) else moment for moment in times if moment]
                if seen and max(seen) <= before:
                    found.append(name)
        return found
