from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from scpalm.app.errors import DrainingError, InferenceError, QueueFullError
from scpalm.app.queue.throughput import Throughput
from scpalm.app.queue.transport import MAX_DELIVERIES, WorkItem, WorkResult
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.model.genes.rows import GeneSet, Rows


def work(num_rows: int) -> WorkItem:
    rows = Rows(
        np.arange(num_rows + 1, dtype=np.int64),
        np.zeros(num_rows, np.int32),
        np.ones(num_rows, np.float32),
        (GeneSet(np.ones(3, bool)),),
        np.zeros(num_rows, np.int32),
    )
    return WorkItem((), rows)


def make(**limits: float) -> MemoryTransport:
    return MemoryTransport(**{"max_rows": 100, "max_bytes": 1 << 20, **limits})  # type: ignore[arg-type]


def outcome(num_rows: int) -> WorkResult:
    return WorkResult({"embed": np.zeros((num_rows, 2), np.float32)})


def run(scenario: Callable[[], object]) -> object:
    return asyncio.run(scenario())  # type: ignore[arg-type]


def test_settled_work_answers_its_request_also_when_settled_before_it_is_awaited() -> None:
    async def scenario() -> WorkResult:
        transport = make()
        job = work(3)
        await transport.submit(job)
        (lease,) = transport.lease("a", 0)
        expected = outcome(3)
        assert transport.settle(lease, expected)
        got = await transport.reply(job.id)
        assert got is expected and transport.idle
        return got

    run(scenario)


def test_leases_come_oldest_first_and_once() -> None:
    async def scenario() -> None:
        transport = make()
        jobs = [work(1) for _ in range(3)]
        for job in jobs:
            await transport.submit(job)
        assert [lease.work for lease in transport.lease("a", 0)] == jobs
        assert transport.lease("b", 0) == []

    run(scenario)


def test_only_the_first_outcome_counts() -> None:
    async def scenario() -> None:
        transport = make()
        job = work(1)
        await transport.submit(job)
        (lease,) = transport.lease("a", 0)
        first = outcome(1)
        assert transport.settle(lease, first)
        assert not transport.settle(lease, WorkResult(None, InferenceError("late")))
        assert await transport.reply(job.id) is first

    run(scenario)


@pytest.mark.parametrize("limits", [{"max_rows": 10}, {"max_bytes": work(10).rows.num_bytes}])
def test_over_the_limit_on_rows_or_bytes_is_refused(limits: dict[str, float]) -> None:
    async def scenario() -> None:
        transport = make(**limits)
        await transport.submit(work(10))
        assert transport.depth().full
        with pytest.raises(QueueFullError) as caught:
            await transport.submit(work(1))
        assert caught.value.retry_after == 1

    run(scenario)


def test_a_request_over_the_limit_is_taken_when_nothing_else_waits() -> None:
    async def scenario() -> None:
        transport = make(max_rows=10)
        await transport.submit(work(50))
        assert transport.depth().rows["online"] == 50

    run(scenario)


def test_progress_frees_room_and_settling_empties_the_queue() -> None:
    async def scenario() -> None:
        transport = make(max_rows=10)
        await transport.submit(work(10))
        (lease,) = transport.lease("a", 0)
        transport.extend(lease, 4)
        assert transport.depth().rows["online"] == 6
        await transport.submit(work(4))
        transport.settle(lease, outcome(10))
        assert transport.depth().rows == {"online": 4, "bulk": 0}

    run(scenario)


def test_retry_after_is_queued_rows_over_measured_rows_a_second() -> None:
    throughput = Throughput()
    assert throughput.seconds_for(1000) == 1, "nothing measured yet"
    throughput.observe(2.0, 100)
    throughput.observe(2.0, 100)
    assert throughput.seconds_for(1000) == 20
    throughput.observe(40.0, 400)
    assert throughput.seconds_for(1000) == 100, "only the last half minute counts"


def test_lost_leases_are_handed_out_again_when_they_run_out() -> None:
    redelivered = []

    async def scenario() -> None:
        transport = MemoryTransport(
            max_rows=10, max_bytes=1 << 20, lease_seconds=0.0, on_redelivery=lambda: redelivered.append(1)
        )
        await transport.submit(work(2))
        (first,) = transport.lease("a", 0)
        transport.extend(first, 1)
        (second,) = transport.lease("b", 0.01)
        assert second.work is first.work and second.deliveries == 2
        assert transport.depth().rows["online"] == 2, "its rows start again"
        transport.extend(first, 2)
        assert transport.depth().rows["online"] == 2, "a lost lease reports nothing"

    run(scenario)
    assert redelivered == [1]


def test_a_restarted_worker_gets_its_own_work_back_and_no_other() -> None:
    async def scenario() -> None:
        transport = make()
        await transport.submit(work(1))
        (mine,) = transport.lease("a", 0)
        await transport.submit(work(2))
        (theirs,) = transport.lease("b", 0)
        assert [lease.work for lease in transport.lease("a", 0, resume=True)] == [mine.work]
        assert transport.settle(theirs, outcome(2))

    run(scenario)


def test_work_that_keeps_killing_its_worker_fails() -> None:
    async def scenario() -> None:
        transport = make()
        job = work(1)
        await transport.submit(job)
        for delivery in range(MAX_DELIVERIES):
            (lease,) = transport.lease("a", 0, resume=True)
            assert lease.deliveries == delivery + 1
        assert transport.lease("a", 0, resume=True) == []
        assert isinstance((await transport.reply(job.id)).error, InferenceError)
        assert transport.idle

    run(scenario)


def test_a_cancelled_wait_marks_the_work_abandoned_waiting_or_leased() -> None:
    async def scenario() -> None:
        transport = make()
        for leased_first in (True, False):
            job = work(1)
            await transport.submit(job)
            leases = transport.lease("a", 0) if leased_first else []
            waiting = asyncio.create_task(transport.reply(job.id))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            (lease,) = leases or transport.lease("a", 0)
            assert lease.abandoned
            transport.settle(lease, outcome(1))
            await asyncio.sleep(0)

    run(scenario)


def test_a_closed_transport_takes_nothing_and_still_hands_out_what_it_has() -> None:
    async def scenario() -> None:
        transport = make()
        await transport.submit(work(1))
        transport.close()
        with pytest.raises(DrainingError):
            await transport.submit(work(1))
        assert len(transport.lease("a", 0)) == 1

    run(scenario)
