"""The queue in one process, in addition to `test_contract`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from scpalm.app.errors import DrainingError
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


def test_rows_of_a_lapsed_lease_are_queued_again() -> None:
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


def test_a_worker_that_was_suspended_keeps_its_items() -> None:
    async def scenario() -> None:
        transport = make(lease_seconds=0.0)
        await transport.submit(work(2))
        (held,) = transport.lease("a", 0)
        for _ in range(2 * MAX_DELIVERIES):
            assert not transport.lease("a", 0), "one that asks has not died"
        assert transport.settle(held, outcome(2))

    run(scenario)


def test_a_restarted_worker_gets_only_its_own_items_back() -> None:
    async def scenario() -> None:
        transport = make()
        await transport.submit(work(1))
        (first,) = transport.lease("a", 0)
        await transport.submit(work(2))
        (second,) = transport.lease("b", 0)
        assert [lease.work for lease in transport.lease("a", 0, resume=True)] == [first.work]
        assert transport.settle(second, outcome(2))

    run(scenario)


def test_a_closed_transport_still_hands_out_what_it_has() -> None:
    async def scenario() -> None:
        transport = make()
        await transport.submit(work(1))
        transport.close()
        with pytest.raises(DrainingError):
            await transport.submit(work(1))
        assert len(transport.lease("a", 0)) == 1

    run(scenario)
