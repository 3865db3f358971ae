from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import pytest

from scpalm.app.errors import InferenceError
from scpalm.app.execution.worker import TICK_SECONDS, Worker
from scpalm.app.queue.transport import Lane, WorkItem
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.tasks.embed import Embed
from tests.app.execution.scenario import run, submit_all, until, values_of
from tests.app.fakes import INFO, FakeSession, expected, make_rows, make_work

StartWorker = Callable[..., Worker]
POISON = 250


def works_ahead(worker: Worker) -> list[str]:
    """Ids of the items in the batch that was formed ahead."""
    batch = worker._slot
    return [segment.pending.lease.work.id for segment in batch.segments] if batch is not None else []


def rows_ahead(worker: Worker) -> int:
    """Number of rows in the batch that was formed ahead."""
    batch = worker._slot
    return batch.num_rows if batch is not None else 0


def test_each_request_gets_its_own_rows_back_in_order(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        start_worker()
        works = [make_work(size, "bulk" if size > 20 else "online", seed=size) for size in (1, 50, 8, 3, 17, 2)]
        for work, outcome in zip(works, await (await submit_all(transport, works)), strict=True):
            np.testing.assert_array_equal(values_of(outcome), expected(work.rows))
        assert max(map(len, session.calls)) <= 8
        assert sum(map(len, session.calls)) == 81

    run(scenario())


@pytest.mark.parametrize("lane", ["bulk", "online"])
def test_one_cell_joins_the_batch_after_the_running_one_despite_a_large_file(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker, lane: Lane
) -> None:
    async def scenario() -> None:
        session.gate.clear()
        worker = start_worker()
        large = make_work(50_000 // 50, lane)
        await transport.submit(large)
        await until(session.running.is_set)
        await until(lambda: rows_ahead(worker) == 8)
        single = make_work(1, seed=7)
        await transport.submit(single)
        await until(lambda: single.id in works_ahead(worker))
        assert len(session.calls) == 1
        session.gate.set()
        outcome = await transport.reply(single.id)
        np.testing.assert_array_equal(values_of(outcome), expected(single.rows))
        sizes = single.rows.gene_index
        batch_of_single = next(
            number
            for number, rows in enumerate(session.calls)
            if any(
                rows.gene_index[rows.indptr[row] : rows.indptr[row + 1]].tolist() == sizes.tolist()
                for row in range(len(rows))
            )
        )
        assert batch_of_single == 1, "the batch formed ahead was full, so it must be formed again"
        done = await transport.reply(large.id)
        np.testing.assert_array_equal(values_of(done), expected(large.rows))
        assert sum(map(len, session.calls)) == len(large.rows) + 1

    run(scenario())


def test_while_the_device_runs_one_batch_is_formed_and_topped_up(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        session.gate.clear()
        worker = start_worker()
        works = [make_work(1, seed=seed) for seed in range(5)]
        await transport.submit(works[0])
        await until(session.running.is_set)
        for number, work in enumerate(works[1:]):
            await transport.submit(work)
            await until(lambda number=number: rows_ahead(worker) == number + 1)  # type: ignore[misc]
        session.gate.set()
        await asyncio.gather(*(transport.reply(work.id) for work in works))
        assert [len(rows) for rows in session.calls] == [1, 4]

    run(scenario())


def test_only_the_faulty_request_fails(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker, metrics: Metrics
) -> None:
    session.poison = POISON

    async def scenario() -> None:
        works = [make_work(2, seed=seed, gene=POISON if seed == 2 else None) for seed in range(4)]
        waiting = await submit_all(transport, works)
        start_worker()
        outcomes = await waiting
        assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]
        assert isinstance(outcomes[2].error, InferenceError)
        for index in (0, 1, 3):
            np.testing.assert_array_equal(values_of(outcomes[index]), expected(works[index].rows))

    run(scenario())
    assert metrics.registry.get_sample_value("scpalm_dropped_total", {"reason": "inference_failed"}) == 1


def test_a_failed_request_takes_its_later_rows_with_it(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    session.poison = POISON

    async def scenario() -> None:
        rows = make_rows(5, gene=POISON)
        guilty = WorkItem((Embed(INFO),), rows.concat([rows, make_rows(200, seed=1)]), "bulk")
        innocent = make_work(30, seed=2)
        waiting = await submit_all(transport, [guilty, innocent])
        start_worker()
        failed, fine = await waiting
        assert failed.error is not None and fine.error is None
        assert transport.idle
        assert sum(map(len, session.calls)) < 100

    run(scenario())


def test_disconnected_clients_are_skipped_and_counted(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker, metrics: Metrics
) -> None:
    async def scenario() -> None:
        session.gate.clear()
        worker = start_worker()
        await transport.submit(make_work(8))
        await until(session.running.is_set)
        gone = make_work(400, seed=1)
        await transport.submit(gone)
        waiting = asyncio.create_task(transport.reply(gone.id))
        await until(lambda: gone.id in works_ahead(worker))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        session.gate.set()
        last = make_work(1, seed=2)
        await transport.submit(last)
        assert (await transport.reply(last.id)).error is None
        await until(lambda: transport.idle)
        assert sum(map(len, session.calls)) <= 8 + 1

    run(scenario())
    assert metrics.registry.get_sample_value("scpalm_dropped_total", {"reason": "client_gone"}) == 1


def test_a_replacement_worker_takes_over_the_items_of_a_dead_one(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    session.deadly = POISON

    async def scenario() -> None:
        worker = start_worker()
        assert worker.alive
        works = [make_work(2, gene=POISON), make_work(3, seed=1)]
        waiting = await submit_all(transport, works)
        await until(lambda: not worker.alive)
        session.deadly = -1
        start_worker(resume=True)
        for work, outcome in zip(works, await waiting, strict=True):
            np.testing.assert_array_equal(values_of(outcome), expected(work.rows))

    run(scenario())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_item_that_kills_every_worker_fails(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    session.deadly = POISON

    async def scenario() -> None:
        await transport.submit(deadly := make_work(2, gene=POISON))
        for _ in range(3):
            worker = start_worker(resume=True)
            await until(lambda worker=worker: not worker.alive)  # type: ignore[misc]
        survivor = start_worker(resume=True)
        outcome = await transport.reply(deadly.id)
        assert isinstance(outcome.error, InferenceError) and "3 workers died" in outcome.error.detail
        assert survivor.alive

    run(scenario())


def test_a_hung_device_counts_as_stalled(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker
) -> None:
    async def scenario() -> None:
        session.gate.clear()
        worker = start_worker()
        await transport.submit(work := make_work(1))
        await until(session.running.is_set)
        started = time.monotonic()
        # Idle loops report progress once per tick, so only a longer pause counts as a stall.
        await until(lambda: worker.stalled_seconds() > 3 * TICK_SECONDS)
        assert time.monotonic() - started < 10
        session.gate.set()
        await transport.reply(work.id)
        await until(lambda: worker.stalled_seconds() < 2 * TICK_SECONDS)

    run(scenario())


def test_metrics_count_batches_rows_and_time(
    session: FakeSession, transport: MemoryTransport, start_worker: StartWorker, metrics: Metrics
) -> None:
    async def scenario() -> None:
        waiting = await submit_all(transport, [make_work(20)])
        start_worker()
        await waiting

    run(scenario())
    read = metrics.registry.get_sample_value
    assert read("scpalm_rows_total", {"lane": "online", "task": "embed"}) == 20
    assert read("scpalm_batch_rows_sum") == 20
    assert read("scpalm_batch_rows_count") == len(session.calls) == 3
    assert read("scpalm_queue_duration_seconds_count", {"lane": "online"}) == 1
    assert read("scpalm_inference_duration_seconds_count", {"task": "embed", "device": "cpu"}) == 3
