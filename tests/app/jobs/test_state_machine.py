"""Random sequences of what can happen to jobs, with both ledgers, real files and real faults.

Each accepted body has one result or one reported failure; no result is another body's; no file is without an owner.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scpalm.app.background import TaskSupervisor
from scpalm.app.errors import IdempotencyError, NotReadyError, ServiceError, StorageFullError
from scpalm.app.jobs.folders import LocalJobFolders
from scpalm.app.jobs.home import JobHome
from scpalm.app.jobs.ledger import redis as redis_ledger
from scpalm.app.jobs.ledger.ledger import OPEN, Job, Ledger, Submission
from scpalm.app.jobs.ledger.redis import RedisLedger
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.runner import JobOptions, JobRunner
from scpalm.app.serving.model import ServedModel
from scpalm.app.serving.models import Models
from scpalm.model.spec import RequestSpec
from tests.redis_server import RedisServer, require_redis

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


class JobMachine(RuleBasedStateMachine):
    """See the module. Subclasses open the ledgers."""

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
        self.told: dict[str, str] = {}  # ends that the ledger has confirmed

    def teardown(self) -> None:
        try:
            self.relieve()
            self.run(self._finish_all())
            self.check()
        finally:
            for process in self.processes:
                self.run(process.ledger.close())
            self.patch.undo()
            self.loop.close()
            shutil.rmtree(self.folder)

    # --- helpers

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

    async def _finish_all(self) -> None:
        self.held.clear()
        if not self.shared:
            cast(SqliteLedger, self.processes[0].ledger).requeue_running()
        process = self.processes[0]
        process.fails = False
        ends = self.loop.time() + 10
        while open_jobs := [job for job in await process.ledger.latest() if job.state in OPEN]:
            assert self.loop.time() < ends, f"these hang: {open_jobs}"
            if not await process.runner.run_next():
                await asyncio.sleep(0.01)
        counts = await process.ledger.counts()
        assert not counts["queued"] and not counts["running"], counts
        for job_id in self.accepted:
            job = await process.ledger.get(job_id)
            assert job is not None and job.state not in OPEN, f"{job_id} hangs: {job}"

    # --- what happens

    @initialize()
    def open(self) -> None:
        if self.server is not None:
            self.server.client().flushall()
        self.processes = [self._open() for _ in range(2 if self.shared else 1)]

    @rule(body=st.sampled_from(BODIES), key=st.sampled_from(KEYS), at=st.integers(0, 1))
    def submit(self, body: bytes, key: str | None, at: int) -> None:
        process = self.processes[at % len(self.processes)]
        digest = hashlib.sha256(body).hexdigest()
        submission = Submission("", f"print of {digest}", f"request of {digest}", key)

        async def accept() -> Job:
            found = await process.ledger.find(submission)
            if found is not None:
                return found
            model = cast(ServedModel, FakeModel())
            return (await process.runner.accept(body, submission, MANIFEST, model))[0]

        holder = self.keys.get(key) if key is not None else None
        other = holder is not None and self.accepted.get(holder, body) != body
        try:
            job = self.run(accept())
        except IdempotencyError:
            assert other, "the key was used with this body only"
            return
        except (StorageFullError, NotReadyError):
            assert self.troubled
            return
        assert not other, "the key stands for another body"
        assert self.accepted.setdefault(job.id, body) == body, "a client got the job of another body"
        if key is not None:
            self.keys[key] = job.id

    @precondition(lambda self: not self.troubled)
    @rule(fails=st.booleans(), at=st.integers(0, 1))
    def run_a_job(self, fails: bool, at: int) -> None:
        process = self.processes[at % len(self.processes)]
        process.fails = fails
        self.run(process.runner.run_next())

    @rule(at=st.integers(0, 1))
    def take(self, at: int) -> None:
        process = self.processes[at % len(self.processes)]
        try:
            job = self.run(process.ledger.take(("m",)))
        except (NotReadyError, StorageFullError):
            assert self.troubled
            return
        if job is not None:
            self.held.append(Held(process, job))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        live = self._live(held)
        assert self.run(held.process.ledger.renew(held.job)) == live

    @precondition(lambda self: self.held and not self.troubled)
    @rule(data=st.data(), state=st.sampled_from(["succeeded", "failed", "queued"]))
    def finish(self, data: st.DataObject, state: Any) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        live = self._live(held)
        files = held.process.runner.files_of(held.job)
        if state == "succeeded" and live:
            files.write(RESULT_FILE, result_of(files.read(BODY_FILE)))
            assert self.run(held.process.ledger.commit_chunk(held.job, 0, 1)) in (True, False)
        elif not live:
            assert not self.run(held.process.ledger.commit_chunk(held.job, 1, 1)), "a stale attempt may commit nothing"
        ended = self.run(held.process.ledger.end(held.job, state, FAILURE if state == "failed" else None))
        assert ended == live, "only the latest attempt may end a job"

    @precondition(lambda self: self.shared and self.held)
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        """A process is silent for longer than its lease; then another one may have the job."""
        held = data.draw(st.sampled_from(self.held))
        other = self.processes[1 - self.processes.index(held.process)]

        async def wait_and_take() -> Job | None:
            for _ in range(int(3 * LEASE_SECONDS / 0.01)):
                if (job := await other.ledger.take(("m",))) is not None:
                    return job
                await asyncio.sleep(0.01)
            return None

        if (job := self.run(wait_and_take())) is not None:
            self.held.append(Held(other, job))

    @precondition(lambda self: self.shared and self.held)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        """No process reaches Redis for a while. Then leases that could not be renewed must not be taken over."""
        held = data.draw(st.sampled_from(self.held))
        if not self._live(held):
            return
        self.run(asyncio.sleep(LEASE_SECONDS + PAUSE_SECONDS))
        other = self.processes[1 - self.processes.index(held.process)]
        taken = self.run(other.ledger.take(("m",)))
        assert taken is None or taken.id != held.job.id
        if taken is not None:
            self.held.append(Held(other, taken))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.processes))
        job = self.run(process.ledger.get(data.draw(st.sampled_from(sorted(self.accepted)))))
        if job is None:
            return
        try:
            cancelled = self.run(process.runner.cancel(job))
        except (NotReadyError, StorageFullError):
            assert self.troubled
            return
        assert cancelled == (job.state in OPEN)

    @precondition(lambda self: not self.troubled)
    @rule()
    def expire(self) -> None:
        """All ended jobs are old enough to be removed."""
        process = self.processes[0]
        ended = {job.id for job in self.run(process.ledger.latest()) if job.state not in OPEN}
        self.run(process.runner.housekeeping.expire())
        for job_id in ended:
            assert self.run(process.ledger.get(job_id)) is None
            self.accepted.pop(job_id, None)
            self.told.pop(job_id, None)
        self.keys = {key: job_id for key, job_id in self.keys.items() if job_id not in ended}

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

    # --- what must hold

    @invariant()
    def check(self) -> None:
        if not self.processes:
            return
        ledger = self.processes[0].ledger
        for job_id, body in self.accepted.items():
            job = self.run(ledger.get(job_id))
            assert job is not None, "an accepted job is gone"
            self._check_job(job, body)
        for folder in self.jobs.iterdir():
            job = self.run(ledger.get(folder.name))
            assert job is not None, f"{sorted(folder.iterdir())} have no owner"
            assert self.troubled or not list(folder.glob("*.partial"))

    def _check_job(self, job: Job, body: bytes) -> None:
        files = self.processes[0].runner.files_of(job)
        if job.state in OPEN:
            assert files.read(BODY_FILE) == body, "a job has lost its body, or has another one"
        elif job.state == "succeeded":
            assert files.read(RESULT_FILE) == result_of(body), "the result is missing, or is another body's"
        elif job.state == "failed":
            assert job.error, "a failure must be reported"
        if job.state not in OPEN:
            assert self.told.setdefault(job.id, job.state) == job.state, "an end is final"


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def run(machine: type[JobMachine]) -> None:
    """Run a state machine, up to three times.

    Leases lapse by a clock. On a busy machine a lease may lapse between two runs of the same steps, and Hypothesis then
    finds other steps possible than before. That says nothing about jobs: start again.
    """
    for attempt in range(3):
        try:
            run_state_machine_as_test(machine, settings=SETTINGS)
            return
        except FlakyStrategyDefinition:
            if attempt == 2:
                raise


def test_jobs_in_sqlite() -> None:
    run(JobMachine)


def test_jobs_in_redis(tmp_path: Path) -> None:
    require_redis()
    redis = RedisServer(tmp_path, appendonly="no").start()

    class RedisJobMachine(JobMachine):
        server = redis

    try:
        run(RedisJobMachine)
    finally:
        redis.stop()
