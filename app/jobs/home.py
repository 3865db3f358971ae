"""Where jobs live: a ledger and a place for files, of this process alone or shared by all behind one Redis."""

from __future__ import annotations

import fcntl
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.ledger.ledger import Ledger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.places import LocalPlace, Place, SpoolPlace
from scpalm.app.settings import Settings
from scpalm.app.storage.spool import Spool
from scpalm.app.storage.urls import is_redis

log = logging.getLogger("scpalm.jobs")

LEDGER_FILE = "jobs.sqlite"
# Of a ledger that no other service shares: a third of it until one hears of `scpalm jobs --cancel`.
_OWN_LEASE_SECONDS = 3.0


@dataclass(frozen=True)
class JobHome:
    """What a runner needs of where its jobs live.

    Attributes:
        ledger, place_of: of all jobs; of the files of one. lease_seconds: how long a silent holder keeps a job.
    """

    ledger: Ledger
    place_of: Callable[[str], Place]
    lease_seconds: float
    release: Callable[[], object] = field(default=lambda: None)

    async def close(self) -> None:
        """End the ledger, and give back what held the place."""
        await self.ledger.close()
        self.release()


def open_home(settings: Settings) -> JobHome:
    """As the settings say. Raises JobStorageError, QueueError, SpoolError."""
    if is_redis(settings.redis_url):
        return _shared(settings)
    try:
        return _own(own_directory(settings))
    except JobStorageError:
        if settings.results_dir is not None:
            raise
        # Another service uses the default folder: ours will not survive a restart, which nobody asked for.
        return _own(Path(tempfile.mkdtemp(prefix="scpalm-jobs-", dir=settings.spool_dir)))


def own_directory(settings: Settings) -> Path:
    """Where a service without Redis keeps its jobs, unless another one is there already."""
    return settings.results_dir or settings.spool_dir / "scpalm-jobs"


def _own(directory: Path) -> JobHome:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JobStorageError(
            f"The folder of jobs {directory} cannot be used ({error.strerror}): another service holds it, or it "
            "cannot be written to. Name another with SCPALM_RESULTS_DIR."
        ) from error
    ledger = SqliteLedger(directory / LEDGER_FILE)
    again = ledger.requeue_running()
    if again:
        log.info("%d unfinished jobs are taken up again", again)
    return JobHome(ledger, lambda job_id: LocalPlace(directory / job_id), _OWN_LEASE_SECONDS, lock.close)


def _shared(settings: Settings) -> JobHome:
    from scpalm.app.jobs.ledger.redis import RedisLedger

    spool = Spool(settings.spool_url or str(settings.spool_dir / "scpalm-spool"))
    ledger = RedisLedger(settings.redis_url, lease_seconds=settings.lease_seconds)
    folder = spool.folder
    if folder is None:
        return JobHome(ledger, lambda job_id: SpoolPlace(spool, job_id), settings.lease_seconds)
    return JobHome(ledger, lambda job_id: LocalPlace(folder / "jobs" / job_id), settings.lease_seconds)
