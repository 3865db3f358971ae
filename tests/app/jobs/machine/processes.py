"""Processes with real ledgers and files, and what can go wrong with them: full disks, locks, kills."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from scpalm.app.background import TaskSupervisor
from scpalm.app.errors import ServiceError
from scpalm.app.jobs.folders import LocalJobFolders
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.ledger import redis as redis_ledger
from scpalm.app.jobs.ledger.ledger import Job, Ledger
from scpalm.app.jobs.ledger.redis import RedisLedger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.runner import JobOptions, JobRunner
from scpalm.app.serving.models import Models
from scpalm.model.spec import RequestSpec
from tests.redis_server import RedisServer

T = TypeVar("T")

LEASE_SECONDS = 0.1
PAUSE_SECONDS = 0.05
MODEL = ("mini", "1", "m")
MANIFEST = Manifest(RequestSpec(("embed",)), "application/json", "", MODEL)
BODIES = [b"cells of one", b"cells of two", b"cells of three"]
KEYS = [None, "k1", "k2"]
RESULT_FILE = "result"
FAILURE = "The model failed on these cells."


class FakeModels:
    """The part of `Models` that a runner needs to take jobs."""

    identities: ClassVar[list[tuple[str, str, str]]] = [MODEL]


class FakeModel:
    """The part of `ServedModel` that accepting a job needs."""

    def held(self) -> Any:
        return nullcontext()


def result_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


class FakeAttempt:
    """An attempt whose result is a hash of the body; or it fails."""

    def __init__(self, process: Process, job: Job, *, fails: bool) -> None:
        self._process, self._job, self._fails = process, job, fails

    async def run(self) -> None:
        files = self._process.runner.files_of(self._job)
        body = await asyncio.to_thread(files.read, BODY_FILE)
        if self._fails:
            raise ServiceError(FAILURE)
        await asyncio.to_thread(files.write, RESULT_FILE, result_of(body))
        await self._process.ledger.commit_chunk(self._job, 0, 1)


@dataclass(eq=False)
class Process:
    """One service: its ledger and its runner."""

    ledger: Ledger
    runner: JobRunner
    fails: bool = False


@dataclass(eq=False)
class Held:
    """A job that a process runs step by step, in the middle of an attempt."""

    process: Process
    job: Job


class Processes(RuleBasedStateMachine):
    """One process with a ledger in SQLite, or two that share one in Redis. Subclasses run jobs on them."""

    server: ClassVar[RedisServer | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="scpalm-machine-"))
        self.jobs = self.folder / "jobs"
        self.jobs.mkdir()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("scpalm.app.jobs.files.os.fsync", self._fsync)
        self.patch.setattr(redis_ledger, "pause_ms", lambda lease_seconds: int(1000 * PAUSE_SECONDS))
        self.full = False
        self.backup: sqlite3.Connection | None = None
        self.processes: list[Process] = []
        self.accepted: dict[str, bytes] = {}  # every job that a client knows
        self.keys: dict[str, str] = {}
        self.held: list[Held] = []
        self.ends: dict[str, str] = {}  # ends that the ledger has confirmed

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.loop.run_until_complete(bounded())

    @property
    def shared(self) -> bool:
        return self.server is not None

    @property
    def troubled(self) -> bool:
        return self.full or self.backup is not None

    def _fsync(self, descriptor: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")

    def _open(self) -> Process:
        if self.server is not None:
            ledger: Ledger = RedisLedger(self.server.url, lease_seconds=LEASE_SECONDS)
        else:
            ledger = SqliteLedger(self.folder / "jobs.sqlite", busy_seconds=0.02)
        home = JobHome(ledger, LocalJobFolders(self.jobs), 3600.0, 0.0)
        models = cast(Models, FakeModels())
        options = JobOptions(-60.0, self.folder)
        runner = JobRunner(models, home, options, asyncio.Event(), TaskSupervisor())
        process = Process(ledger, runner)
        self.patch.setattr(runner, "_attempt", lambda job: FakeAttempt(process, job, fails=process.fails))
        return process

    def _live(self, held: Held) -> bool:
        """Whether this attempt is the job's latest, and the job has not ended."""
        job = self.run(held.process.ledger.get(held.job.id))
        return job is not None and job.state == "running" and job.attempt == held.job.attempt

    # --- what happens

    @initialize()
    def open(self) -> None:
        if self.server is not None:
            self.server.client().flushall()
        self.processes = [self._open() for _ in range(2 if self.shared else 1)]

    @rule()
    def fill_the_disk(self) -> None:
        self.full = True
        if self.server is not None:
            self.server.client().config_set("maxmemory", "1")
        else:
            self._limit_pages("(SELECT * FROM pragma_page_count)")

    @precondition(lambda self: not self.shared and self.backup is None)
    @rule()
    def lock_the_ledger(self) -> None:
        self.backup = sqlite3.connect(self.folder / "jobs.sqlite", isolation_level=None)
        self.backup.execute("BEGIN IMMEDIATE")

    @precondition(lambda self: self.troubled)
    @rule()
    def relieve(self) -> None:
        """There is room again, and the ledger is not locked."""
        if self.backup is not None:
            self.backup.execute("ROLLBACK")
            self.backup.close()
            self.backup = None
        if self.full:
            self.full = False
            if self.server is not None:
                self.server.client().config_set("maxmemory", "0")
            else:
                self._limit_pages("4294967294")

    def _limit_pages(self, limit: str) -> None:
        """A ledger that may not grow fails exactly as on a full disk."""
        database = cast(SqliteLedger, self.processes[0].ledger)._database
        (pages,) = database._writes.execute("PRAGMA page_count").fetchone()
        database._writes.execute(f"PRAGMA max_page_count = {pages if 'page' in limit else limit}")

    @precondition(lambda self: not self.troubled)
    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        """A process is killed and started again."""
        at %= len(self.processes)
        killed = self.processes[at]
        self.held = [held for held in self.held if held.process is not killed]
        self.run(killed.ledger.close())
        self.processes[at] = self._open()
        if not self.shared:
            cast(SqliteLedger, self.processes[at].ledger).requeue_running()
        self.run(self.processes[at].runner.housekeeping.sweep())
