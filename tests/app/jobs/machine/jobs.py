"""What happens to the jobs of `Processes`, and what must hold after every step."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
)

from scpalm.app.errors import IdempotencyError, NotReadyError, StorageFullError
from scpalm.app.jobs.ledger.ledger import OPEN, Job, Submission
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from scpalm.app.jobs.manifest import BODY_FILE
from scpalm.app.serving.model import ServedModel
from tests.app.jobs.machine.processes import (
    BODIES,
    FAILURE,
    KEYS,
    LEASE_SECONDS,
    MANIFEST,
    PAUSE_SECONDS,
    RESULT_FILE,
    FakeModel,
    Held,
    Processes,
    result_of,
)


class JobMachine(Processes):
    """Jobs are sent, run, cancelled and removed. A subclass names a Redis server for a shared ledger."""

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
            self.ends.pop(job_id, None)
        self.keys = {key: job_id for key, job_id in self.keys.items() if job_id not in ended}

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
            assert self.ends.setdefault(job.id, job.state) == job.state, "an end is final"
