"""Open the storage of jobs, a ledger and files, for a single process or shared through Redis."""

from __future__ import annotations

import fcntl
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.files import JobFiles, LocalJobFiles, SpoolJobFiles
from scpalm.app.jobs.ledger.ledger import Ledger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.settings import Settings
from scpalm.app.storage.spool import Spool
from scpalm.app.storage.urls import is_redis

log = logging.getLogger("scpalm.jobs")

LEDGER_FILE = "jobs.sqlite"
# Leases in SQLite never expire. A third of this is how often a runner checks for `scpalm jobs --cancel`.
_SQLITE_LEASE_SECONDS = 3.0


@dataclass(frozen=True)
class JobHome:
    """The storage of jobs.

    Attributes:
        ledger: the ledger of all jobs.
        files_of: returns the files of the job with the given id.
        lease_seconds: a process that does not renew its lease for this long loses its job.
        release: unlocks the folder.
    """

    ledger: Ledger
    files_of: Callable[[str], JobFiles]
    lease_seconds: float
    release: Callable[[], object] = field(default=lambda: None)

    async def close(self) -> None:
        """Close the ledger and unlock the folder."""
        await self.ledger.close()
        self.release()


def open_home(settings: Settings) -> JobHome:
    """Open the storage given by the settings. Raises JobStorageError, LedgerVersionError, QueueError, SpoolError."""
    if is_redis(settings.redis_url):
        return _open_shared(settings)
    try:
        return _open_folder(jobs_folder(settings))
    except JobStorageError as error:
        if settings.results_dir is not None:
            raise
        # Another service uses the default folder. No results_dir is set, so jobs need not survive a restart.
        log.warning("%s Jobs are stored in a temporary folder and will not survive a restart.", error)
        return _open_folder(Path(tempfile.mkdtemp(prefix="scpalm-jobs-", dir=settings.spool_dir)))


def jobs_folder(settings: Settings) -> Path:
    """The folder of jobs for a service without Redis, unless another service has locked it."""
    return settings.results_dir or settings.spool_dir / "scpalm-jobs"


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
    except BaseException:
        lock.close()
        raise
    num_queued = ledger.requeue_running()
    if num_queued:
        log.info("queued %d unfinished jobs again", num_queued)
    return JobHome(ledger, lambda job_id: LocalJobFiles(folder / job_id), _SQLITE_LEASE_SECONDS, lock.close)


def _open_shared(settings: Settings) -> JobHome:
    from scpalm.app.jobs.ledger.redis import RedisLedger

    spool = Spool(settings.spool_url or str(settings.spool_dir / "scpalm-spool"))
    ledger = RedisLedger(settings.redis_url, lease_seconds=settings.lease_seconds)
    folder = spool.folder
    if folder is None:
        return JobHome(ledger, lambda job_id: SpoolJobFiles(spool, job_id), settings.lease_seconds)
    return JobHome(ledger, lambda job_id: LocalJobFiles(folder / "jobs" / job_id), settings.lease_seconds)
