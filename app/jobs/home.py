"""Open the storage of jobs, a ledger and files, for a single process or shared through Redis."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.folders import JobFolders, LocalJobFolders, SpoolJobFolders
from scpalm.app.jobs.ledger.ledger import Ledger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.settings import Settings
from scpalm.app.storage.spool import Spool
from scpalm.app.storage.urls import is_redis

log = logging.getLogger("scpalm.jobs")

LEDGER_FILE = "jobs.sqlite"
# Leases in SQLite never expire. A third of this is how often a runner checks for `scpalm jobs --cancel`.
_SQLITE_LEASE_SECONDS = 3.0
# In a shared spool other processes store the body of a job before the ledger lists it.
_SHARED_SWEEP_SECONDS = 3600.0


@dataclass(frozen=True)
class JobHome:
    """The storage of jobs.

    Attributes:
        ledger: the ledger of all jobs.
        folders: the folders of their files.
        lease_seconds: a process that does not renew its lease for this long loses its job.
        sweep_seconds: files that no job has owned for this long are removed.
        release: unlocks the folder.
    """

    ledger: Ledger
    folders: JobFolders
    lease_seconds: float
    sweep_seconds: float
    release: Callable[[], object] = field(default=lambda: None)

    def files_of(self, job_id: str) -> JobFiles:
        """The files of the job with this id."""
        return self.folders.of(job_id)

    async def close(self) -> None:
        """Close the ledger and unlock the folder."""
        await self.ledger.close()
        await asyncio.to_thread(self.release)


def open_home(settings: Settings, temporary: Path | None = None) -> JobHome:
    """Open the storage given by the settings. Blocking.

    A second service on the default folder keeps its jobs in ``temporary`` (default: the spool folder).

    Raises JobStorageError, LedgerVersionError, QueueError, SpoolError; NotReadyError or StorageFullError if the ledger
    is locked or its disk is full.
    """
    if is_redis(settings.redis_url):
        return _open_shared(settings)
    try:
        return _open_folder(jobs_folder(settings))
    except JobStorageError as error:
        if settings.results_dir is not None:
            raise
        # Another service uses the default folder. No results_dir is set, so jobs need not survive a restart.
        folder = Path(tempfile.mkdtemp(prefix="scpalm-jobs-", dir=temporary or settings.spool_dir))
        log.warning("%s Until then jobs are stored in %s, which is removed when this service stops.", error, folder)
        home = _open_folder(folder)

        def release() -> None:
            home.release()
            shutil.rmtree(folder, ignore_errors=True)

        return replace(home, release=release)


def jobs_folder(settings: Settings) -> Path:
    """The folder of jobs for a service without Redis, unless another service has locked it."""
    return settings.results_dir or settings.spool_dir / "scpalm-jobs"


def uploads_folder(settings: Settings) -> Path:
    """The folder that has the uploads of jobs, unless they are in an object store."""
    if not is_redis(settings.redis_url):
        return jobs_folder(settings)
    if settings.results_dir is not None:
        return settings.results_dir
    spool = Spool(settings.spool_url or str(settings.spool_dir / "scpalm-spool"))
    return (spool.folder or settings.spool_dir / "scpalm-spool") / "jobs"


def _open_folder(folder: Path) -> JobHome:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JobStorageError(
            f"The job folder {folder} cannot be used ({error.strerror}): another service has locked it, or it is not "
            "writable. Set another folder with SCPALM_RESULTS_DIR."
        ) from error
    try:
        ledger = SqliteLedger(folder / LEDGER_FILE)
        num_queued = ledger.requeue_running()
    except BaseException:
        lock.close()
        raise
    if num_queued:
        log.info("queued %d unfinished jobs again", num_queued)
    # No other process writes to the folder.
    return JobHome(ledger, LocalJobFolders(folder), _SQLITE_LEASE_SECONDS, 0.0, lock.close)


def _open_shared(settings: Settings) -> JobHome:
    from scpalm.app.jobs.ledger.redis import RedisLedger

    spool = Spool(settings.spool_url or str(settings.spool_dir / "scpalm-spool"))
    ledger = RedisLedger(settings.redis_url, lease_seconds=settings.lease_seconds)
    folders: JobFolders
    if settings.results_dir is not None:
        folders = LocalJobFolders(settings.results_dir)
    else:
        folders = SpoolJobFolders(spool) if spool.folder is None else LocalJobFolders(spool.folder / "jobs")
    return JobHome(ledger, folders, settings.lease_seconds, _SHARED_SWEEP_SECONDS)
