"""The default: a queue inside one process, between its event loop and its device threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scpalm.app.errors import DrainingError, InferenceError, QueueFullError
from scpalm.app.queue.registry import QueueOptions, TransportKind
from scpalm.app.queue.throughput import Throughput
from scpalm.app.queue.transport import (
    LANES,
    LEASE_SECONDS,
    MAX_DELIVERIES,
    WORKERS_DIED,
    Depth,
    Lane,
    Lease,
    WorkItem,
    WorkResult,
)
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import SessionInfo


@dataclass(eq=False)
class _Entry:
    """One unsettled item."""

    work: WorkItem
    submitted_at: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[WorkResult]
    num_bytes: int
    deliveries: int = 0
    rows_done: int = 0
    lease: Lease | None = None
    lease_ends: float = 0.0

    @property
    def rows_left(self) -> int:
        return len(self.work.rows) - self.rows_done


class MemoryTransport:
    """See `scpalm.app.queue.transport.Transport`. Safe between threads.

    Args:
        max_rows, max_bytes: most that may wait. on_redelivery: called when a lapsed lease is handed out again.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_bytes: int,
        lease_seconds: float = LEASE_SECONDS,
        on_redelivery: Callable[[], object] = lambda: None,
    ) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lease_seconds = lease_seconds
        self._on_redelivery = on_redelivery
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # unsettled, oldest first
        self._waiting: OrderedDict[str, _Entry] = OrderedDict()  # those of them without a lease
        self._unanswered: dict[str, _Entry] = {}  # `reply` not called yet; may be settled already
        self._rows: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._bytes = 0
        self._reserved: dict[str, tuple[Lane, int]] = {}  # rows that admitted requests may still submit
        self._closed = False
        self._throughput = Throughput()
        self._measured_until = 0.0

    # --- life

    async def start(self, bundle: Bundle, on_wait: Callable[[str], object]) -> None:
        return

    def serve_leases(self, info: SessionInfo) -> None:
        return

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def stop(self) -> None:
        return

    # --- the service's side

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        with self._changed:
            self._check_room(num_rows, 0)
            self._reserved[request] = (lane, num_rows)
            self._rows[lane] += num_rows

    async def dismiss(self, request: str) -> None:
        with self._changed:
            lane, left = self._reserved.pop(request, ("online", 0))
            self._rows[lane] -= left
            gone = [entry for entry in self._entries.values() if entry.work.request == request]
        for entry in gone:
            # Includes items whose `reply` was never called.
            entry.future.cancel()
            self._unanswered.pop(entry.work.id, None)
            self._abandon(entry)

    def _use_reservation(self, work: WorkItem) -> bool:
        lane, left = self._reserved.get(work.request, (work.lane, 0))
        if left < len(work.rows):
            return False
        self._reserved[work.request] = (lane, left - len(work.rows))
        self._rows[lane] -= len(work.rows)
        return True

    def _check_room(self, num_rows: int, num_bytes: int) -> None:
        if self._closed:
            raise DrainingError("The service takes no new work. Send the request to another replica.")
        queued = sum(self._rows.values())
        if queued and (queued + num_rows > self._max_rows or self._bytes + num_bytes > self._max_bytes):
            raise self._queue_full(queued)

    async def submit(self, work: WorkItem) -> None:
        """An item over the limits is accepted when nothing else waits. Needs a running event loop."""
        loop = asyncio.get_running_loop()
        num_bytes = work.rows.num_bytes
        with self._changed:
            if not self._use_reservation(work):
                self._check_room(len(work.rows), num_bytes)
            now = time.monotonic()
            if not self._entries:
                self._measured_until = now
            entry = _Entry(work, now, loop, loop.create_future(), num_bytes)
            self._entries[work.id] = self._waiting[work.id] = self._unanswered[work.id] = entry
            self._rows[work.lane] += len(work.rows)
            self._bytes += num_bytes
            self._changed.notify_all()

    def _queue_full(self, queued: int) -> QueueFullError:
        seconds = self._throughput.seconds_for(queued)
        return QueueFullError(
            f"{queued} cells are waiting and this request does not fit in the queue. Try again in {seconds} s.",
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
        # The worker still gets the item, so that dropped work is counted in one place.
        with self._changed:
            if entry.lease is not None:
                entry.lease.abandoned = True
            self._changed.notify_all()

    # --- the worker's side

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        # Hands out everything regardless of the room: there is one worker, and its batcher is fair among what it holds.
        with self._changed:
            if resume:
                self._take_back(lambda lease, _: lease.worker == worker)
            now = time.monotonic()
            # A worker that asks has not died: it was suspended, or its renewals were late.
            self._take_back(lambda lease, ends: ends < now and lease.worker != worker)
            if not self._waiting and wait > 0.0:
                self._changed.wait(wait)
            leases = [lease for entry in self._waiting.values() if (lease := self._hand_out(entry, worker)) is not None]
            self._waiting.clear()
            return leases

    def _take_back(self, is_lost: Callable[[Lease, float], bool]) -> None:
        for entry in self._entries.values():
            if entry.lease is not None and is_lost(entry.lease, entry.lease_ends):
                entry.lease = None
                self._rows[entry.work.lane] += entry.rows_done
                entry.rows_done = 0
                self._waiting[entry.work.id] = entry
                self._on_redelivery()

    def _hand_out(self, entry: _Entry, worker: str) -> Lease | None:
        if entry.deliveries >= MAX_DELIVERIES:
            self._finish(entry, WorkResult(None, InferenceError(WORKERS_DIED)))
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

    def settle(self, lease: Lease, result: WorkResult) -> bool:
        with self._changed:
            entry = self._entries.get(lease.work.id)
            if entry is None:
                return False
            if result.values is not None:
                self._progress(entry, entry.rows_left)
            self._finish(entry, result)
            return True

    def _progress(self, entry: _Entry, rows: int) -> None:
        if rows <= 0:
            return
        now = time.monotonic()
        self._throughput.observe(now - self._measured_until, rows)
        self._measured_until = now
        entry.rows_done += rows
        self._rows[entry.work.lane] -= rows

    def _finish(self, entry: _Entry, result: WorkResult) -> None:
        del self._entries[entry.work.id]
        self._rows[entry.work.lane] -= entry.rows_left
        self._bytes -= entry.num_bytes
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no request waits
            entry.loop.call_soon_threadsafe(_resolve, entry.future, result)

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

    @property
    def devices(self) -> Sequence[str]:
        return ()

    @property
    def in_use(self) -> bool:
        return False  # only this process can submit work

    @property
    def idle(self) -> bool:
        with self._changed:
            return not self._entries and not self._reserved


def _resolve(future: asyncio.Future[WorkResult], result: WorkResult) -> None:
    if not future.done():
        future.set_result(result)


def open_memory(options: QueueOptions) -> MemoryTransport:
    """The queue in this process; work that was leased too often fails without a dead letter."""
    return MemoryTransport(
        max_rows=options.max_rows, max_bytes=options.max_bytes, on_redelivery=options.events.on_redelivery
    )


TRANSPORT = TransportKind(("",), in_process=True, open=open_memory)
