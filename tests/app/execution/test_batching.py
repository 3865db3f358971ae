from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest

from scpalm.app.execution.batching import Batcher, fair_shares
from scpalm.app.queue.transport import Lane, Lease, WorkItem
from scpalm.model.genes.rows import GeneSet, Rows


def lease(num_rows: int, lane: Lane = "online", *, request: str | None = None, client: str = "") -> Lease:
    empty = Rows(
        np.zeros(num_rows + 1, np.int64),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        (GeneSet(np.ones(3, bool)),),
        np.zeros(num_rows, np.int32),
    )
    return Lease(WorkItem((), empty, lane, request=request or uuid4().hex, client=client), "worker", 1, 0.0)


def drain(batcher: Batcher) -> list[list[tuple[str, int, int]]]:
    batches = []
    while (batch := batcher.form()) is not None:
        batches.append([(s.pending.lease.work.id, s.start, s.stop) for s in batch.segments])
    return batches


@pytest.mark.parametrize(
    ("demands", "room", "shares"),
    [
        ([100], 8, [8]),
        ([3], 8, [3]),
        ([100, 1], 8, [7, 1]),
        ([100, 100], 8, [4, 4]),
        ([1, 100, 2, 100], 9, [1, 3, 2, 3]),
        ([5] * 4, 2, [1, 1, 0, 0]),
        ([], 8, []),
        ([4], 0, [0]),
    ],
)
def test_space_is_shared_equally_up_to_the_demand(demands: list[int], room: int, shares: list[int]) -> None:
    assert fair_shares(demands, room) == shares


@pytest.mark.parametrize(
    ("demands", "shares"),
    [
        ([64] * 6, [64, 64, 64, 64, 0, 0]),
        ([2000, 1], [255, 1]),
        ([2000] * 3, [85, 85, 86]),
        ([70] * 5, [64, 64, 64, 64, 0]),
        ([64, 64, 64, 64, 1], [64, 64, 64, 63, 1]),
        ([2000, *[1] * 300], [64, *[1] * 192, *[0] * 108]),
    ],
)
def test_short_requests_are_not_cut_into_slices(demands: list[int], shares: list[int]) -> None:
    assert fair_shares(demands, 256, 64) == shares


def test_no_space_is_wasted_and_the_first_request_is_always_included() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        demands = random.choice([1, 2, 5, 30, 64, 65, 200, 5000], random.integers(1, 12)).tolist()
        room, turn = int(random.integers(1, 300)), int(random.choice([1, 2, 16, 64]))
        shares = fair_shares(demands, room, turn)
        assert sum(shares) == min(room, sum(demands)) and shares[0] > 0
        assert all(0 <= share <= demand for share, demand in zip(shares, demands, strict=True))


def test_one_cell_is_in_the_next_batch_while_a_large_file_runs() -> None:
    batcher = Batcher(8)
    batcher.add(lease(50_000))
    assert batcher.form() is not None
    single = lease(1)
    batcher.add(single)
    batch = batcher.form()
    assert batch is not None
    assert single.work.id in {segment.pending.lease.work.id for segment in batch.segments}
    assert batch.num_rows == 8


def test_every_row_is_in_exactly_one_batch_in_order() -> None:
    batcher = Batcher(8)
    leases = [lease(30), lease(5, "bulk"), lease(17)]
    for entry in leases:
        batcher.add(entry)
    sizes = {entry.work.id: len(entry.work.rows) for entry in leases}
    seen: dict[str, list[int]] = {name: [] for name in sizes}
    for batch in drain(batcher):
        assert sum(stop - start for _, start, stop in batch) <= 8
        for name, start, stop in batch:
            seen[name] += range(start, stop)
    assert seen == {name: list(range(size)) for name, size in sizes.items()}
    assert not batcher.has_rows


def test_requests_beyond_one_batch_finish_one_after_the_other() -> None:
    batcher = Batcher(256)
    leases = [lease(64) for _ in range(16)]
    for entry in leases:
        batcher.add(entry)
    batches = drain(batcher)
    assert [len(batch) for batch in batches] == [4] * 4, "requests must not all finish late at the same time"
    assert [name for batch in batches for name, _, _ in batch] == [entry.work.id for entry in leases]


def test_one_cell_is_in_the_next_batch_under_any_load() -> None:
    batcher = Batcher(256)
    for size in [64] * 16 + [2000] * 3:
        batcher.add(lease(size))
    single = lease(1)
    batcher.add(single)
    batch = batcher.form()
    assert batch is not None and batch.num_rows == 256
    assert single.work.id in {segment.pending.lease.work.id for segment in batch.segments}


def test_a_stream_of_short_requests_does_not_starve_a_long_one() -> None:
    batcher = Batcher(8)
    long = [batcher.add(lease(10)) for _ in range(3)]
    formed = 0
    while any(not_done.rows_left for not_done in long):
        for _ in range(8):
            batcher.add(lease(1))
        batch = batcher.form()
        assert batch is not None and batch.num_rows == 8
        formed += 1
    assert formed <= 20, "each gets a turn every few batches, even under overload"


def test_bulk_gets_a_quarter_of_each_batch_and_online_the_rest() -> None:
    batcher = Batcher(8)
    bulk, online = lease(100, "bulk"), lease(100, "online")
    batcher.add(bulk)
    batcher.add(online)
    for _ in range(5):
        batch = batcher.form()
        assert batch is not None
        rows = {segment.pending.lane: len(segment) for segment in batch.segments}
        assert rows == {"online": 6, "bulk": 2}


def test_few_online_cells_are_combined_with_half_a_batch_of_bulk() -> None:
    batcher = Batcher(16)
    for entry in (lease(100, "bulk"), lease(2, "online")):
        batcher.add(entry)
    batch = batcher.form()
    assert batch is not None
    assert {segment.pending.lane: len(segment) for segment in batch.segments} == {"online": 2, "bulk": 6}


def test_a_batch_is_formed_again_for_a_request_it_left_out() -> None:
    batcher = Batcher(8)
    large = batcher.add(lease(100))
    batch = batcher.form()
    assert batch is not None and batch.num_rows == 8 and not batcher.left_out(batch)
    single = batcher.add(lease(1))
    assert batcher.left_out(batch)
    assert batcher.form(batch) is batch and not batcher.left_out(batch)
    assert {id(segment.pending): len(segment) for segment in batch.segments} == {id(large): 7, id(single): 1}
    rows = [row for batch in drain(batcher) for name, start, stop in batch for row in range(start, stop)]
    assert rows == list(range(7, 100))


def test_many_small_requests_are_not_formed_again_for_one_more() -> None:
    batcher = Batcher(4)
    for _ in range(4):
        batcher.add(lease(1))
    batch = batcher.form()
    batcher.add(lease(1))
    assert batch is not None and not batcher.left_out(batch)


def test_a_lane_alone_fills_the_batch() -> None:
    for lane in ("online", "bulk"):
        batcher = Batcher(8)
        batcher.add(lease(100, lane))
        batch = batcher.form()
        assert batch is not None and batch.num_rows == 8


def test_a_small_batch_is_topped_up() -> None:
    batcher = Batcher(8)
    batcher.add(lease(1))
    batch = batcher.form()
    batcher.add(lease(20))
    assert batcher.form(batch) is batch
    assert batch is not None and batch.num_rows == 8
    batch.assemble()
    assert batch.rows is not None and len(batch.rows) == 8


def test_a_request_with_many_items_gets_one_turn() -> None:
    batcher = Batcher(8)
    for _ in range(5):
        batcher.add(lease(10, request="file"))
    batcher.add(lease(100, request="other"))
    batch = batcher.form()
    assert batch is not None
    rows = {"file": 0, "other": 0}
    for segment in batch.segments:
        rows[segment.pending.lease.work.request] += len(segment)
    assert rows == {"file": 4, "other": 4}
    assert sum(len(batch) for batch in drain(batcher)) > 0 and not batcher.has_rows


def test_abandoned_requests_leave_the_queue() -> None:
    batcher = Batcher(8)
    gone, stays = lease(100), lease(3)
    batcher.add(gone)
    batcher.add(stays)
    gone.abandoned = True
    assert [pending.lease for pending in batcher.take_abandoned()] == [gone]
    assert {name for batch in drain(batcher) for name, _, _ in batch} == {stays.work.id}


def test_requests_settled_after_forming_are_left_out_of_the_batch() -> None:
    batcher = Batcher(8)
    first, second = batcher.add(lease(2)), batcher.add(lease(3))
    batch = batcher.form()
    assert batch is not None
    batch.assemble()
    first.settled = True
    batch.drop_settled()
    assert [segment.pending for segment in batch.segments] == [second]
    assert batch.rows is not None and len(batch.rows) == 3


@pytest.mark.parametrize("lane", ["online", "bulk"])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_flood_of_one_client_delays_others_by_no_batch(lane: Lane, rows: int) -> None:
    batcher = Batcher(8)
    for _ in range(500):
        batcher.add(lease(rows, lane, client="flood"))
    batcher.form()  # one batch is with the device
    formed = batcher.form()  # and one is formed ahead
    single = batcher.add(lease(1, lane, client="other"))
    assert formed is not None and batcher.left_out(formed)
    batch = batcher.form(formed)
    assert batch is not None and batch.num_rows == 8
    assert single in [segment.pending for segment in batch.segments]


def test_clients_share_a_batch_however_many_requests_they_send() -> None:
    batcher = Batcher(8)
    for client, requests in (("a", 50), ("b", 2)):
        for _ in range(requests):
            batcher.add(lease(10, client=client))
    batch = batcher.form()
    assert batch is not None
    rows = {"a": 0, "b": 0}
    for segment in batch.segments:
        rows[segment.pending.lease.work.client] += len(segment)
    assert rows == {"a": 4, "b": 4}
