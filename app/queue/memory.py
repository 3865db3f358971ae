"""The embedded default: a queue in this process, between its event loop and its device threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scpalm.app.errors import DrainingError, InferenceError, QueueFullError
from scpalm.app.queue.throughput import Throughput
from scpalm.app.queue.transport import LANES, LEASE_SECONDS, MAX_DELIVERIES, Depth, Lane, Lease, WorkItem, WorkResult


@dataclass(eq=False)
class _Entry:
    work: WorkItem
    submitted_at: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[WorkResult]
    deliveries: int = 0
    rows_done: int = 0
    lease: Lease | None = None
    lease_ends: float = 0.0
    num_bytes: int = field(default=0)

    @property
    def rows_left(self) -> int:
        return len(self.work.rows) - self.rows_done


class MemoryTransport:
    """Transport inside one process, bounded in rows and in bytes. Safe between threads."""

    def __init__(
        self,
        *,
        max_rows: int,
        max_bytes: int,
        lease_seconds: float = LEASE_SECONDS,
        on_redelivery: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lease_seconds = lease_seconds
        self._on_redelivery = on_redelivery
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # unsettled, oldest first
        self._waiting: OrderedDict[str, _Entry] = OrderedDict()  # of those, the ones no worker holds
        self._unanswered: dict[str, _Entry] = {}  # submitted, `reply` not called yet; perhaps settled already
        self._rows: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._bytes = 0
        self._kept: dict[str, tuple[Lane, int]] = {}  # room of admitted requests for rows still to come
        self._closed = False
        self._throughput = Throughput()
        self._measured_until = 0.0

    # --- the service's side

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        with self._changed:
            self._check_room(num_rows, 0)
            self._kept[request] = (lane, num_rows)
            self._rows[lane] += num_rows

    async def dismiss(self, request: str) -> None:
        with self._changed:
            lane, left = self._kept.pop(request, ("online", 0))
            self._rows[lane] -= left
            gone = [entry for entry in self._entries.values() if entry.work.request == request]
        for entry in gone:
            # Also those whose reply nobody has come to wait for.
            entry.future.cancel()
            self._unanswered.pop(entry.work.id, None)
            self._abandon(entry)

    def _take_kept(self, work: WorkItem) -> bool:
        lane, left = self._kept.get(work.request, (work.lane, 0))
        if left < len(work.rows):
            return False
        self._kept[work.request] = (lane, left - len(work.rows))
        self._rows[lane] -= len(work.rows)
        return True

    def _check_room(self, num_rows: int, num_bytes: int) -> None:
        if self._closed:
            raise DrainingError("The service takes no new work. Send the request to another replica.")
        queued = sum(self._rows.values())
        if queued and (queued + num_rows > self._max_rows or self._bytes + num_bytes > self._max_bytes):
            raise self._queue_full(queued)

    async def submit(self, work: WorkItem) -> None:
        """Queue work; needs a running event loop. A single work over the limits is taken when nothing else waits."""
        loop = asyncio.get_running_loop()
        num_bytes = work.rows.num_bytes
        with self._changed:
            if not self._take_kept(work):
                self._check_room(len(work.rows), num_bytes)
            now = time.monotonic()
            if not self._entries:
                self._measured_until = now
            entry = _Entry(work, now, loop, loop.create_future(), num_bytes=num_bytes)
            self._entries[work.id] = self._waiting[work.id] = self._unanswered[work.id] = entry
            self._rows[work.lane] += len(work.rows)
            self._bytes += num_bytes
            self._changed.notify_all()

    def _queue_full(self, queued: int) -> QueueFullError:
        seconds = self._throughput.seconds_for(queued)
        return QueueFullError(
            f"{queued} cells are waiting, and this request does not fit beside them. Try again in {seconds} s.",
            retry_after=seconds,
        )

    async def reply(self, work_id: str) -> WorkResult:
        with self._changed:
            entry = self._unanswered.pop(work_id)
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._abandon(entry)
            raise

    def _abandon(self, entry: _Entry) -> None:
        # A worker still has to see it, so that dropped work is counted in one place.
        with self._changed:
            if entry.lease is not None:
                entry.lease.abandoned = True
            self._changed.notify_all()

    # --- the worker's side

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        # All that waits, whatever the room: one worker, and its batcher is fair only among what it sees.
        with self._changed:
            if resume:
                self._take_back(lambda lease, _: lease.worker == worker)
            now = time.monotonic()
            self._take_back(lambda _, ends: ends < now)
            if not self._waiting and wait > 0.0:
                self._changed.wait(wait)
            leases = [lease for entry in self._waiting.values() if (lease := self._hand_out(entry, worker)) is not None]
            self._waiting.clear()
            return leases

    def _take_back(self, lost: Callable[[Lease, float], bool]) -> None:
        for entry in self._entries.values():
            if entry.lease is not None and lost(entry.lease, entry.lease_ends):
                entry.lease = None
                self._rows[entry.work.lane] += entry.rows_done
                entry.rows_done = 0
                self._waiting[entry.work.id] = entry
                self._on_redelivery()

    def _hand_out(self, entry: _Entry, worker: str) -> Lease | None:
        if entry.deliveries >= MAX_DELIVERIES:
            detail = f"The worker died {MAX_DELIVERIES} times with these cells in hand. Send them in smaller requests."
            self._finish(entry, WorkResult(None, InferenceError(detail)))
            return None
        entry.deliveries += 1
        entry.lease = Lease(entry.work, worker, entry.deliveries, entry.submitted_at, entry.future.cancelled())
        entry.lease_ends = time.monotonic() + self._lease_seconds
        return entry.lease

    def extend(self, lease: Lease, rows_done: int) -> None:
        with self._changed:
            entry = self._entries.get(lease.work.id)
            if entry is None or entry.lease is not lease:
                return
            entry.lease_ends = time.monotonic() + self._lease_seconds
            self._progress(entry, rows_done - entry.rows_done)

    def settle(self, lease: Lease, outcome: WorkResult) -> bool:
        with self._changed:
            entry = self._entries.get(lease.work.id)
            if entry is None:
                return False
            if outcome.values is not None:
                self._progress(entry, entry.rows_left)
            self._finish(entry, outcome)
            return True

    def _progress(self, entry: _Entry, rows: int) -> None:
        if rows <= 0:
            return
        now = time.monotonic()
        self._throughput.observe(now - self._measured_until, rows)
        self._measured_until = now
        entry.rows_done += rows
        self._rows[entry.work.lane] -= rows

    def _finish(self, entry: _Entry, outcome: WorkResult) -> None:
        del self._entries[entry.work.id]
        self._rows[entry.work.lane] -= entry.rows_left
        self._bytes -= entry.num_bytes
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            entry.loop.call_soon_threadsafe(_resolve, entry.future, outcome)

    # --- both sides

    def depth(self) -> Depth:
        with self._changed:
            now = time.monotonic()
            oldest: dict[Lane, float] = dict.fromkeys(LANES, 0.0)
            for entry in reversed(self._entries.values()):
                oldest[entry.work.lane] = now - entry.submitted_at
            queued = sum(self._rows.values())
            full = queued >= self._max_rows or self._bytes >= self._max_bytes
            return Depth(dict(self._rows), oldest, full, self._throughput.seconds_for(queued))

    def fault(self) -> None:
        return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        with self._changed:
            return not self._entries and not self._kept


def _resolve(future: asyncio.Future[WorkResult], outcome: WorkResult) -> None:
    if not future.done():
        future.set_result(outcome)
