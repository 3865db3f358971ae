from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from scpalm.app.execution.batching import Pending, Segment
from scpalm.app.execution.finishing import BusyTime, Finisher
from scpalm.app.execution.worker import Worker
from scpalm.app.queue.transport import Lane, Lease, WorkItem, WorkResult
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session
from scpalm.model.tasks.embed import Embed
from scpalm.model.tasks.task import BoundTask, OutputSpec, Values
from tests.app.execution.scenario import run, submit_all, until
from tests.app.fakes import INFO, FakeSession, expected, make_rows, make_work

StartWorker = Callable[..., Worker]
POISON = 250


@pytest.fixture
def session() -> FakeSession:
    """A session on a GPU, which encodes while tasks run."""
    return FakeSession("cuda:0")


def test_a_value_that_is_not_finite_fails_its_request_and_names_the_cell(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    session.not_finite = POISON

    async def scenario() -> None:
        waiting = await submit_all(transport, [make_work(3, gene=POISON), make_work(3, seed=1)])
        start_worker()
        bad, good = await waiting
        assert bad.error is not None and "row 2" in bad.error.detail
        assert good.error is None

    run(scenario())


class EmptyFirstRow(BoundTask):
    """Like drug response: a row of only NaN is valid, but a single NaN among numbers is a fault."""

    name = "ic50"
    outputs = (OutputSpec("ic50", "X_ic50", 3),)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        values = encoded.embedding.copy()
        values[0], values[2, 1] = np.nan, np.nan
        return {"ic50": values}

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        rows = values["ic50"]
        bad = ~np.isfinite(rows).all(axis=1) & ~np.isnan(rows).all(axis=1)
        return int(bad.argmax()) if bad.any() else None


def test_errors_name_the_invalid_row_not_an_intentionally_empty_one(
    transport: MemoryTransport, start_worker: StartWorker, metrics: Metrics
) -> None:
    async def scenario() -> None:
        plain = make_work(4)
        waiting = await submit_all(transport, [WorkItem((EmptyFirstRow(),), plain.rows, first=10)])
        start_worker()
        (result,) = await waiting
        assert result.error is not None and "row 12" in result.error.detail

    metrics.model_loaded(("fake", "1", "0" * 64), INFO)
    run(scenario())


class SlowTask(BoundTask):
    """Waits for a gate, and can end the thread that runs it."""

    name = "slow"
    outputs = (OutputSpec("slow", "X_slow", 3),)

    def __init__(self) -> None:
        self.gate, self.running, self.deadly = threading.Event(), threading.Event(), False

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        self.running.set()
        assert self.gate.wait(20), "a test did not open the gate"
        if self.deadly:
            raise SystemExit("the thread is gone")
        return {"slow": encoded.embedding.copy()}

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        return None


def slow_works(number: int) -> tuple[SlowTask, list[WorkItem]]:
    task = SlowTask()
    return task, [WorkItem((task,), make_rows(8, seed=seed), "bulk") for seed in range(number)]


def test_the_device_goes_on_while_a_task_of_an_earlier_batch_runs(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        task, works = slow_works(6)
        waiting = await submit_all(transport, works)
        start_worker()
        await until(task.running.is_set)
        # One batch is finished, one waits for that, and a third one is handed over when the first is done.
        await until(lambda: len(session.calls) == 3)
        task.gate.set()
        for work, outcome in zip(works, await waiting, strict=True):
            assert outcome.values is not None
            np.testing.assert_array_equal(outcome.values["slow"], expected(work.rows))

    run(scenario())


def test_a_slow_task_bounds_how_many_batches_are_computed_ahead(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        task, works = slow_works(12)
        waiting = await submit_all(transport, works)
        worker = start_worker()
        await until(lambda: len(session.calls) == 3)
        await asyncio.sleep(0.2)
        assert len(session.calls) == 3
        assert worker.alive
        task.gate.set()
        await waiting
        assert len(session.calls) == 12

    run(scenario())


def test_a_cpu_finishes_a_batch_before_it_encodes_the_next(transport: MemoryTransport, metrics: Metrics) -> None:
    async def scenario() -> None:
        session = FakeSession()
        task, works = slow_works(4)
        waiting = await submit_all(transport, works)
        worker = Worker(session, transport, metrics, batch_rows=8)
        worker.start()
        await until(task.running.is_set)
        await asyncio.sleep(0.1)
        assert len(session.calls) == 1
        task.gate.set()
        for work, outcome in zip(works, await waiting, strict=True):
            assert outcome.values is not None
            np.testing.assert_array_equal(outcome.values["slow"], expected(work.rows))
        await asyncio.to_thread(worker.stop)

    run(scenario())


def test_a_stopped_worker_finishes_what_the_device_has_computed(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        task, works = slow_works(3)
        waiting = await submit_all(transport, works)
        worker = start_worker()
        await until(lambda: len(session.calls) == 3)
        threading.Timer(0.05, task.gate.set).start()
        worker.stop()
        assert not worker.alive
        for work, outcome in zip(works, await waiting, strict=True):
            assert outcome.values is not None
            np.testing.assert_array_equal(outcome.values["slow"], expected(work.rows))

    run(scenario())


def test_a_task_that_ends_its_thread_ends_the_worker_and_loses_nothing(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        task, works = slow_works(4)
        task.deadly = True
        task.gate.set()
        waiting = await submit_all(transport, works)
        worker = start_worker()
        await until(lambda: not worker.alive)
        worker.stop()
        task.deadly = False
        start_worker(resume=True)
        for work, outcome in zip(works, await waiting, strict=True):
            assert outcome.values is not None
            np.testing.assert_array_equal(outcome.values["slow"], expected(work.rows))

    run(scenario())


def test_an_item_whose_device_and_task_both_fail_is_settled_once(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker, metrics: Metrics
) -> None:
    session.poison = POISON

    async def scenario() -> None:
        task = SlowTask()
        # The first batch waits for its task, the last one fails on the device.
        work = WorkItem((task,), make_rows(20, gene=POISON), "bulk")
        waiting = await submit_all(transport, [work])
        start_worker()
        (outcome,) = await waiting
        assert outcome.error is not None
        task.gate.set()
        (after,) = await (await submit_all(transport, [make_work(2)]))
        assert after.error is None
        assert transport.idle

    run(scenario())
    assert metrics.registry.get_sample_value("scpalm_dropped_total", {"reason": "inference_failed"}) == 1


def test_busy_time_counts_overlapping_work_once(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    busy = BusyTime(metrics, "cpu")

    def at(second: float) -> None:
        now[0] = 100.0 + second

    first = busy.start()
    at(1)
    second = busy.start()
    at(3)
    busy.stop(first, "embed")
    assert metrics.registry.get_sample_value("scpalm_device_busy_seconds_total") == 3
    at(4)
    busy.stop(second, "impute")
    at(10)  # nothing runs until here
    third = busy.start()
    at(12)
    busy.stop(third)
    assert metrics.registry.get_sample_value("scpalm_device_busy_seconds_total") == 6
    labels = {"task": "impute", "device": "cpu"}
    assert metrics.registry.get_sample_value("scpalm_inference_duration_seconds_sum", labels) == 3


def test_online_cells_are_finished_before_bulk_cells_that_were_encoded_earlier(
    session: FakeSession, transport: MemoryTransport, metrics: Metrics
) -> None:
    finished: list[str] = []

    class Noting(MemoryTransport):
        def settle(self, lease: Lease, result: WorkResult) -> bool:
            finished.append(lease.work.request)
            return True

    finisher = Finisher(session, Noting(max_rows=100, max_bytes=1 << 20), metrics)

    def put(*requests: tuple[str, Lane]) -> bool:
        works = [WorkItem((Embed(INFO),), make_rows(2), lane, request=name) for name, lane in requests]
        segments = [Segment(Pending(Lease(work, "worker", 1, 0.0)), 0, 2) for work in works]
        return finisher.put(segments, session.encode(Rows.concat([work.rows for work in works])), 0)

    assert put(("bulk 1", "bulk"), ("bulk 2", "bulk"))
    assert put(("bulk 3", "bulk"), ("online", "online"))
    assert not put(("bulk 4", "bulk")), "two batches are unfinished"
    while finisher.finish_next(0):
        pass
    assert finished == ["online", "bulk 1", "bulk 2", "bulk 3"]
    assert put(("bulk 4", "bulk"))
