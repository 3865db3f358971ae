"""Rows of many requests become device batches, and results go back to their requests. No clock and no threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from scpalm.app.errors import ServiceError
from scpalm.app.queue.transport import LANES, Lane, Lease, WorkItem, WorkResult
from scpalm.model.genes.rows import Rows
from scpalm.model.tasks.task import Values

# In a batch with rows of both lanes, bulk gets at least this share, so that files progress under any online load.
BULK_SHARE = 0.25


@dataclass(eq=False)
class Pending:
    """One leased item and its progress through the batches.

    Attributes:
        next_row: first row that no batch has taken yet. values: ``[num_rows, ...]`` by output, filled as rows are done.
        started_at: when the first row reached the device, by ``time.monotonic()``.
    """

    lease: Lease
    next_row: int = 0
    rows_done: int = 0
    values: dict[str, Values] = field(default_factory=dict)
    started_at: float | None = None
    settled: bool = False

    @property
    def lane(self) -> Lane:
        return self.lease.work.lane

    @property
    def num_rows(self) -> int:
        return len(self.lease.work.rows)

    @property
    def rows_left(self) -> int:
        """Rows that no batch has taken yet."""
        return self.num_rows - self.next_row

    @property
    def finished(self) -> bool:
        """Every row is done."""
        return self.rows_done == self.num_rows

    def start(self, now: float) -> bool:
        """Note that a row reached the device. True the first time."""
        if self.started_at is not None:
            return False
        self.started_at = now
        return True

    def fill(self, start: int, num_rows: int, values: dict[str, Values]) -> None:
        """Store the values of ``num_rows`` rows from ``start`` on."""
        for name, rows in values.items():
            if len(rows) == self.num_rows:
                self.values[name] = rows
                continue
            if name not in self.values:
                self.values[name] = np.empty((self.num_rows, *rows.shape[1:]), dtype=rows.dtype)
            self.values[name][start : start + num_rows] = rows
        self.rows_done += num_rows

    def result(self, error: ServiceError | None = None) -> WorkResult:
        """The values, or the error, with the times."""
        now = time.monotonic()
        started = self.started_at if self.started_at is not None else now
        values = self.values if error is None else None
        return WorkResult(values, error, started - self.lease.submitted_at, now - started)


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows ``start`` to ``stop`` of one item."""

    pending: Pending
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self) -> Rows:
        """The rows themselves."""
        return self.pending.lease.work.rows.slice(self.start, self.stop)


@dataclass(eq=False)
class Batch:
    """The input of one run of the session: segments of items, in order. All tasks start from the same run.

    Attributes:
        rows: the segments' rows, joined by ``assemble`` while the device is busy with another batch.
    """

    segments: list[Segment] = field(default_factory=list)
    rows: Rows | None = None

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.segments))

    def assemble(self) -> None:
        """Join the rows of the segments."""
        self.rows = Rows.concat([segment.rows() for segment in self.segments])

    def drop_settled(self) -> None:
        """Remove items that were settled since the batch was formed: failed in the previous batch, or abandoned."""
        kept = [segment for segment in self.segments if not segment.pending.settled]
        if len(kept) < len(self.segments):
            self.segments = kept
            if kept:
                self.assemble()


class Batcher:
    """Takes rows in turn from the waiting requests.

    Short requests come first and whole; long ones share the rest. So a single cell is in the next batch, however long
    the file that waits with it. Requests left out come first next time, and the first request is never left out.
    Clients share each batch in the same way, so a client that sends many requests does not delay others.
    """

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._lanes: dict[Lane, deque[Pending]] = {lane: deque() for lane in LANES}

    def add(self, lease: Lease) -> Pending:
        """Wait with a leased item for a batch."""
        pending = Pending(lease)
        self._lanes[lease.work.lane].append(pending)
        return pending

    @property
    def has_rows(self) -> bool:
        """Some item has rows that no batch has taken yet."""
        return any(self._lanes.values())

    def waiting(self) -> list[Pending]:
        """Items with rows that no batch has taken yet."""
        return [pending for lane in self._lanes.values() for pending in lane]

    def take_abandoned(self) -> list[Pending]:
        """Remove and return the items that no request waits for. Settled items are removed and not returned."""
        gone = []
        for lane, queue in self._lanes.items():
            gone += [pending for pending in queue if pending.lease.abandoned and not pending.settled]
            self._lanes[lane] = deque(p for p in queue if not (p.lease.abandoned or p.settled))
        return gone

    def rows_left(self, lane: Lane) -> int:
        """Rows of a lane that no batch has taken yet."""
        return sum(pending.rows_left for pending in self._lanes[lane])

    def form(self, batch: Batch | None = None) -> Batch | None:
        """The next batch, not yet assembled; or ``batch`` formed again with what waits now. None when no rows wait."""
        batch = batch or Batch()
        self._give_back(batch)
        online, bulk = (self.rows_left(lane) for lane in LANES)
        for_online, for_bulk = self._shares(online, bulk)
        self._take("online", batch, for_online)
        self._take("bulk", batch, for_bulk)
        return batch if batch.segments else None

    def _shares(self, online: int, bulk: int) -> tuple[int, int]:
        for room in (self._batch_rows // 2, self._batch_rows):
            guaranteed = min(bulk, int(np.ceil(room * BULK_SHARE)))
            # A few online cells go with half a batch of bulk rows, so that they wait half as long.
            if online and online <= room - guaranteed:
                break
        for_online = min(online, room - guaranteed)
        return for_online, min(bulk, room - for_online)

    def _give_back(self, batch: Batch) -> None:
        """Undo a batch that has not run: its items come first again."""
        for segment in reversed(batch.segments):
            segment.pending.next_row = segment.start
        for lane, queue in self._lanes.items():
            first = {id(s.pending): s.pending for s in batch.segments if s.pending.lane == lane}
            later = [pending for pending in queue if id(pending) not in first]
            self._lanes[lane] = deque(p for p in [*first.values(), *later] if not p.settled)
        batch.segments, batch.rows = [], None

    def left_out(self, batch: Batch) -> bool:
        """Whether a waiting request, or client, has no row in the batch while others have more than an equal share."""
        return self._left_out(batch, lambda work: work.request) or self._left_out(batch, lambda work: work.client)

    def _left_out(self, batch: Batch, who: Callable[[WorkItem], str]) -> bool:
        shares: dict[str, int] = {}
        for segment in batch.segments:
            name = who(segment.pending.lease.work)
            shares[name] = shares.get(name, 0) + len(segment)
        equal = max(1, self._batch_rows // (len(shares) + 1))
        return max(shares.values(), default=0) > equal and any(
            who(pending.lease.work) not in shares for pending in self.waiting()
        )

    def _take(self, lane: Lane, batch: Batch, room: int) -> None:
        # By request, not by item: a file that comes in many items has one turn. And by client before that: many
        # requests of one client have one turn, too.
        clients: dict[str, dict[str, list[Pending]]] = {}
        for pending in self._lanes[lane]:
            work = pending.lease.work
            clients.setdefault(work.client, {}).setdefault(work.request, []).append(pending)
        turn = max(1, self._batch_rows // 4)
        demands = {client: [_rows_left(works) for works in clients[client].values()] for client in clients}
        rooms = fair_shares([sum(of_client) for of_client in demands.values()], room, turn)
        turns: list[tuple[list[Pending], int]] = []
        for (client, requests), room_of_client in zip(clients.items(), rooms, strict=True):
            shares = fair_shares(demands[client], room_of_client, turn)
            turns += zip(requests.values(), shares, strict=True)
        waiting: list[Pending] = []
        served: list[Pending] = []
        for works, share in turns:
            (served if share else waiting).extend(works)
            for pending in works:
                count = min(share, pending.rows_left)
                if count:
                    batch.segments.append(Segment(pending, pending.next_row, pending.next_row + count))
                    pending.next_row += count
                    share -= count
        self._lanes[lane] = deque(p for p in waiting + served if p.rows_left)


def _rows_left(works: Sequence[Pending]) -> int:
    return sum(pending.rows_left for pending in works)


def fair_shares(demands: Sequence[int], room: int, turn: int = 1) -> list[int]:
    """Share ``room`` rows among ``demands``, which are in order of their turns.

    As many requests take part as can have ``turn`` rows, or all they need. The first one takes part, then those that
    need no more than a turn, shortest first, then the rest. They share equally, and none gets more than it asked for.
    Giving every request a few rows of each batch would make all of them end late, at the same time.

    Returns:
        The rows of each request, in the order of ``demands``; they add up to at most ``room``.
    """
    shares = [0] * len(demands)
    left = room
    line = sorted(range(1, len(demands)), key=lambda index: min(demands[index], turn + 1))
    chosen: list[int] = []
    for index in [0, *line] if demands else []:
        if left <= 0:
            break
        chosen.append(index)
        left -= min(demands[index], turn)
    # Smallest demands first: what they leave of their equal share raises the share of the rest.
    most = {index: demands[index] for index in chosen}
    if left < 0:  # the last one gets only what the others leave
        most[chosen[-1]] = min(demands[chosen[-1]], turn) + left
    for position, index in enumerate(sorted(chosen, key=most.__getitem__)):
        shares[index] = min(most[index], room // (len(chosen) - position))
        room -= shares[index]
    return shares
