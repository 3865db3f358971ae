"""What the Protocol promises, of every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from scpalm.app.errors import DrainingError, InferenceError, QueueFullError
from scpalm.app.queue.redis.transport import RedisTransport
from scpalm.app.queue.transport import MAX_DELIVERIES, Lane, Lease, Transport, WorkItem, WorkResult
from tests.app.fakes import make_work
from tests.app.queue.conftest import Open, run, until

ROOM: dict[Lane, int] = {"online": 1000, "bulk": 1000}


def outcome(num_rows: int, value: float = 0.0) -> WorkResult:
    return WorkResult({"embed": np.full((num_rows, 2), value, np.float32)})


async def lease(transport: Transport, number: int = 1, worker: str = "a") -> list[Lease]:
    """Lease items until there are ``number``."""
    found: list[Lease] = []
    while len(found) < number:
        found += await asyncio.to_thread(transport.lease, worker, 0.1, room=ROOM)
    return found


async def none_left(transport: Transport) -> Sequence[Lease]:
    return await asyncio.to_thread(transport.lease, "a", 0.0, room=ROOM)


def stop_renewals(transport: Transport) -> None:
    """As if the worker's process were suspended."""
    if isinstance(transport, RedisTransport):
        transport._leases._stall_seconds = -1e9


def same(left: WorkItem, right: WorkItem) -> None:
    assert (left.id, left.request, left.lane, left.first) == (right.id, right.request, right.lane, right.first)
    np.testing.assert_array_equal(left.rows.indptr, right.rows.indptr)
    np.testing.assert_array_equal(left.rows.gene_index, right.rows.gene_index)
    np.testing.assert_array_equal(left.rows.value, right.rows.value)
    assert [task.name for task in left.tasks] == [task.name for task in right.tasks]


def test_a_settled_item_answers_even_when_nothing_awaited_it_yet(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.submit(work := make_work(3))
            (held,) = await lease(transport)
            same(held.work, work)
            assert held.deliveries == 1 and not held.abandoned and not transport.idle
            assert transport.settle(held, outcome(3, 7.0))
            await until(lambda: transport.idle)
            got = await transport.reply(work.id)
            assert got.error is None and got.values is not None
            np.testing.assert_array_equal(got.values["embed"], np.full((3, 2), 7.0))
            await until(lambda: transport.idle)

    run(scenario())


def test_leases_come_oldest_first_and_once_and_lanes_apart(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            works = [make_work(1, seed=seed) for seed in range(3)]
            for work in works:
                await transport.submit(work)
            assert [held.work.id for held in await lease(transport, 3)] == [work.id for work in works]
            assert not await none_left(transport)
            await transport.submit(bulk := make_work(2, "bulk"))
            (held,) = await lease(transport)
            assert held.work.id == bulk.id and held.work.lane == "bulk"

    run(scenario())


def test_only_the_first_result_counts(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.submit(work := make_work(1))
            (held,) = await lease(transport)
            assert transport.settle(held, outcome(1, 1.0))
            assert not transport.settle(held, WorkResult(None, InferenceError("late")))
            got = await transport.reply(work.id)
            assert got.error is None and got.values is not None and got.values["embed"][0, 0] == 1.0

    run(scenario())


def test_an_error_arrives_with_all_its_fields(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.submit(work := make_work(1))
            (held,) = await lease(transport)
            transport.settle(held, WorkResult(None, QueueFullError("so it is", field="cells", retry_after=3)))
            got = (await transport.reply(work.id)).error
            assert isinstance(got, QueueFullError)
            assert (got.detail, got.field, got.retry_after) == ("so it is", "cells", 3)

    run(scenario())


@pytest.mark.parametrize("limits", [{"max_rows": 10}, {"max_bytes": make_work(10).rows.num_bytes}])
def test_a_full_queue_refuses_by_rows_and_by_bytes(open_transport: Open, limits: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with open_transport(**limits) as transport:
            await transport.submit(make_work(10))
            with pytest.raises(QueueFullError) as caught:
                await transport.submit(make_work(10))
            assert caught.value.retry_after == 1
            await until(lambda: transport.depth().full)
            (held,) = await lease(transport)
            transport.settle(held, outcome(10))
            await until(lambda: not transport.depth().full and transport.depth().rows["online"] == 0)
            await transport.submit(make_work(10))

    run(scenario())


def test_a_request_over_the_limit_is_accepted_by_an_empty_queue(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport(max_rows=10) as transport:
            await transport.submit(make_work(50))
            await until(lambda: transport.depth().rows["online"] == 50)

    run(scenario())


def test_an_admission_reserves_rows_until_it_is_dismissed(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.admit("first", 80, "bulk")
            with pytest.raises(QueueFullError):
                await transport.admit("second", 21, "online")
            await transport.admit("third", 20, "online")
            with pytest.raises(QueueFullError):
                await transport.submit(make_work(1))
            part = make_work(60, "bulk")
            await transport.submit(WorkItem(part.tasks, part.rows, "bulk", 0, "first"))
            await transport.dismiss("third")
            await transport.admit("fourth", 20, "online")
            for request in ("first", "fourth"):
                await transport.dismiss(request)

    run(scenario())


def test_retry_after_is_queued_rows_over_measured_speed(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.submit(make_work(10))
            (held,) = await lease(transport)
            await asyncio.sleep(0.2)
            transport.extend(held, 1)  # at most 5 rows a second
            transport.settle(held, WorkResult(None, InferenceError("enough")))
            await transport.submit(make_work(60))
            await until(lambda: 12 <= transport.depth().retry_after <= 60)
            with pytest.raises(QueueFullError) as caught:
                await transport.submit(make_work(41))
            assert caught.value.retry_after is not None and 12 <= caught.value.retry_after <= 60

    run(scenario())


def test_a_lapsed_lease_is_taken_over_and_its_former_holder_is_refused(open_transport: Open) -> None:
    redelivered: list[int] = []

    async def scenario() -> None:
        options = {"lease_seconds": 0.4, "on_redelivery": lambda: redelivered.append(1)}
        async with (
            open_transport(**options) as transport,
            open_transport.another(transport, **options) as another,
        ):
            await transport.submit(work := make_work(2))
            (first,) = await lease(transport)
            stop_renewals(transport)
            (second,) = await lease(another, 1, "b")
            assert second.work.id == work.id and second.deliveries == 2
            if isinstance(transport, RedisTransport):
                transport.settle(first, outcome(2, 1.0))
                await until(lambda: transport._leases.idle)  # Redis has refused it
            assert another.settle(second, outcome(2, 2.0))
            assert not transport.settle(first, outcome(2, 1.0))
            got = await transport.reply(work.id)
            assert got.values is not None and got.values["embed"][0, 0] == 2.0
            await until(lambda: another.idle and transport.idle)

    run(scenario())
    assert redelivered == [1]


def test_an_item_that_kills_every_worker_fails(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport(lease_seconds=0.3) as transport:
            await transport.submit(work := make_work(1))
            for delivery in range(MAX_DELIVERIES):
                async with open_transport.another(transport, lease_seconds=0.3) as doomed:
                    (held,) = await lease(doomed, 1, f"doomed{delivery}")
                    assert held.deliveries == delivery + 1
                    stop_renewals(doomed)
            waiting = asyncio.create_task(transport.reply(work.id))
            while not waiting.done():
                assert not await asyncio.to_thread(transport.lease, "a", 0.1, room=ROOM)
            error = (await waiting).error
            assert isinstance(error, InferenceError) and "3 workers died" in error.detail

    run(scenario())


def test_work_without_a_waiting_request_is_abandoned_queued_or_leased(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            for leased_first in (True, False):
                await transport.submit(work := make_work(1))
                leases = await lease(transport) if leased_first else []
                waiting = asyncio.create_task(transport.reply(work.id))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                leases = leases or list(await none_left(transport))
                if leases:
                    await until(lambda held=leases[0]: held.abandoned)  # type: ignore[misc]
                    transport.settle(leases[0], outcome(1))
                await until(lambda: transport.idle)

    run(scenario())


def test_a_closed_transport_accepts_nothing_new(open_transport: Open) -> None:
    async def scenario() -> None:
        async with open_transport() as transport:
            await transport.submit(work := make_work(1))
            (held,) = await lease(transport)
            transport.close()
            with pytest.raises(DrainingError):
                await transport.submit(make_work(1))
            with pytest.raises(DrainingError):
                await transport.admit("late", 1, "online")
            assert transport.settle(held, outcome(1))
            assert (await transport.reply(work.id)).error is None
            await until(lambda: transport.idle)

    run(scenario())
