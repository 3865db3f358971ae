"""Rows of many requests -> device batches -> rows back to their requests. No clock, no threads: only who is next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.errors import ServiceError
from app.transport import LANES, Lane, Lease, Outcome, Values
from model.rows import Rows
from model.sessions import Task

# A batch with work of both lanes gives bulk at least one row in four, so that files move on under any online load.
BULK_SHARE = 0.25


@dataclass(eq=False)
class Pending:
    """One leased request on its way through the batches."""

    lease: Lease
    next_row: int = 0
    rows_done: int = 0
    values: Values | None = None
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
        return self.rows_done == self.num_rows

    def start(self, now: float) -> bool:
        """Note that the first row reached the device; True the first time."""
        if self.started_at is not None:
            return False
        self.started_at = now
        return True

    def fill(self, start: int, values: Values) -> None:
        """Put the results of rows ``start ...`` in their place."""
        if self.values is None:
            self.values = np.empty((self.num_rows, *values.shape[1:]), dtype=values.dtype)
        self.values[start : start + len(values)] = values
        self.rows_done += len(values)

    def outcome(self, error: ServiceError | None = None) -> Outcome:
        """The result, or the error, with its times."""
        now = time.monotonic()
        started = self.started_at if self.started_at is not None else now
        values = self.values if error is None else None
        return Outcome(values, error, started - self.lease.submitted_at, now - started)


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows ``start`` to ``stop`` of one request."""

    pending: Pending
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def rows(self) -> Rows:
        return self.pending.lease.work.rows.slice(self.start, self.stop)


@dataclass(eq=False)
class Batch:
    """What one run of the session gets: segments of requests with one task, in order.

    Attributes:
        rows: the segments' rows, put together by ``assemble`` while the device is busy with another batch.
    """

    task: Task
    segments: list[Segment] = field(default_factory=list)
    rows: Rows | None = None

    @property
    def num_rows(self) -> int:
        return sum(map(len, self.segments))

    def assemble(self) -> None:
        self.rows = Rows.concat([segment.rows() for segment in self.segments])

    def drop_settled(self) -> None:
        """Leave out requests settled since the batch was formed: failed in the batch before, or abandoned."""
        kept = [segment for segment in self.segments if not segment.pending.settled]
        if len(kept) < len(self.segments):
            self.segments = kept
            if kept:
                self.assemble()


class Batcher:
    """Takes rows in turn from the waiting requests.

    Every waiting request gets an equal share of each batch, and what a small one does not need goes to the others: one
    cell is in the next batch formed, however long the file beside it. Requests that found no room come first next time.
    """

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._lanes: dict[Lane, deque[Pending]] = {lane: deque() for lane in LANES}
        self._last_task: Task | None = None

    def add(self, lease: Lease) -> Pending:
        pending = Pending(lease)
        self._lanes[lease.work.lane].append(pending)
        return pending

    @property
    def has_rows(self) -> bool:
        return any(self._lanes.values())

    def waiting(self) -> list[Pending]:
        """Requests with rows that no batch has taken yet."""
        return [pending for lane in self._lanes.values() for pending in lane]

    def take_abandoned(self) -> list[Pending]:
        """Remove and return the requests that nobody waits for; requests settled already are removed silently."""
        gone = []
        for lane, queue in self._lanes.items():
            gone += [pending for pending in queue if pending.lease.abandoned and not pending.settled]
            self._lanes[lane] = deque(p for p in queue if not (p.lease.abandoned or p.settled))
        return gone

    def form(self, batch: Batch | None = None) -> Batch | None:
        """The next batch, or ``batch`` with more rows in it; None when no rows wait. Not yet assembled."""
        batch = batch or self._empty_batch()
        if batch is None:
            return None
        room = self._batch_rows - batch.num_rows
        online, bulk = (self._demand(lane, batch.task) for lane in LANES)
        guaranteed = min(bulk, int(np.ceil(room * BULK_SHARE)))
        for_online = min(online, room - guaranteed)
        self._take("online", batch, for_online)
        self._take("bulk", batch, room - for_online)
        return batch if batch.segments else None

    def _empty_batch(self) -> Batch | None:
        # A batch has one task: of the request that has waited longest, but tasks take turns.
        leases = [pending.lease for pending in self.waiting()]
        if not leases:
            return None
        oldest = min(leases, key=lambda lease: (lease.work.task == self._last_task, lease.submitted_at))
        self._last_task = oldest.work.task
        return Batch(oldest.work.task)

    def _demand(self, lane: Lane, task: Task) -> int:
        return sum(p.rows_left for p in self._lanes[lane] if p.lease.work.task == task)

    def _take(self, lane: Lane, batch: Batch, room: int) -> None:
        queue = self._lanes[lane]
        candidates = [p for p in queue if p.lease.work.task == batch.task]
        shares = fair_shares([p.rows_left for p in candidates], room)
        served: list[Pending] = []
        for pending, share in zip(candidates, shares, strict=True):
            if share:
                batch.segments.append(Segment(pending, pending.next_row, pending.next_row + share))
                pending.next_row += share
                served.append(pending)
        if served:
            taken = set(map(id, served))
            rest = [p for p in queue if id(p) not in taken]
            self._lanes[lane] = deque(rest + [p for p in served if p.rows_left])


def fair_shares(demands: Sequence[int], room: int) -> list[int]:
    """Share ``room`` rows equally among ``demands``, nobody more than asked; short of room, the first get one."""
    shares = [0] * len(demands)
    # Smallest demands first: what they leave of their equal part raises the part of the rest.
    order = sorted(range(min(len(demands), room)), key=demands.__getitem__)
    for position, index in enumerate(order):
        shares[index] = min(demands[index], room // (len(order) - position))
        room -= shares[index]
    return shares
