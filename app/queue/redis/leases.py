"""The worker's side of the queue in Redis: take items, renew their leases, settle them. Each call may block."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.errors import InferenceError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import Keys
from scpalm.app.queue.redis.entry import Entry, discard
from scpalm.app.queue.redis.in_flight import InFlight
from scpalm.app.queue.redis.lease_scripts import GROUP, leave_group, pause_ms
from scpalm.app.queue.redis.settle import REPLY_SECONDS, Settler
from scpalm.app.queue.redis.status import WorkerStatus
from scpalm.app.queue.registry import QueueOptions
from scpalm.app.queue.transport import LANES, MAX_DELIVERIES, RENEWALS_PER_LEASE, WORKERS_DIED, Lane, Lease, WorkResult
from scpalm.app.queue.wire import WireError, WorkReader, error_outcome
from scpalm.app.storage.redis import connect
from scpalm.app.storage.spool import Spool

log = logging.getLogger("scpalm.redis")

# Longest that one command waits in Redis for work to arrive.
BLOCK_SECONDS = 0.25
TICK_SECONDS = 0.25
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 600.0
# How long the loop pauses while lapsed work waits for the items in flight to end.
_PAUSE_SECONDS = 0.01
DEAD_LETTERS = 1000
_AT_ONCE = 64
_FIRST_GUESS_ROWS = 64.0


class Leases:
    """The items that one worker process holds. Safe between threads.

    An item with a lapsed lease is taken only by a worker that holds nothing else, and alone. If the item killed its
    former worker, it then takes no other item down with it.

    Args:
        name: of this process, never used again.
    """

    def __init__(self, options: QueueOptions, spool: Spool, name: str) -> None:
        self.name = name
        self._spool = spool
        self._lease_seconds, self._stall_seconds = options.lease_seconds, options.stall_seconds
        self._events, self._tasks = options.events, options.tasks
        self._client: Any = connect(options.url)  # the client's own types leave open whether it is asynchronous
        script = self._client.register_script
        self._renew_script, self._beat_script = script(scripts.RENEW), script(scripts.BEAT)
        self._claim_script, self._overdue_script = script(scripts.CLAIM), script(scripts.OVERDUE)
        self._in_flight = InFlight()
        self._closed, self._stopped = threading.Event(), threading.Event()
        self._overdue_checked_at = 0.0
        self._mean_rows = dict.fromkeys(LANES, _FIRST_GUESS_ROWS)
        self._thread: threading.Thread | None = None
        self._away = False

    # --- life

    def start(self, keys: Keys, reader: WorkReader, device: str) -> None:
        """Announce this worker, and begin to renew its leases."""
        self._keys, self._reader, self._device = keys, reader, device
        self._settler = Settler(self._client, self._spool, self._in_flight, keys, self.name)
        self._settler.on_failure = lambda error: self._tasks.note_failure("redis-settling", error, "goes on")
        self._thread = threading.Thread(target=self._renew_loop, name="redis-leases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more items."""
        self._closed.set()

    def stop(self) -> None:
        """End the threads; leases of unsettled items lapse."""
        self._closed.set()
        self._stopped.set()
        if self._thread is not None:
            self._settler.stop()
            self._thread.join(5.0)
            try:
                self._client.delete(self._keys.beats + self.name)
                leave_group(self._client, [self._keys.stream(lane) for lane in LANES], self.name)
            except (RedisError, OSError) as error:
                log.warning("this worker could not remove itself from Redis: %s", error)
        self._client.close()

    @property
    def idle(self) -> bool:
        """No item is held."""
        return not self._in_flight

    # --- taking

    def lease(self, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False) -> Sequence[Lease]:
        """See `scpalm.app.queue.transport.Transport.lease`."""
        if resume:
            # They may be what killed the thread, so they lapse and come back one by one.
            self._in_flight.clear()
        if self._closed.is_set():
            self._stopped.wait(min(wait, TICK_SECONDS))
            return []
        try:
            found = self._take_lapsed(wait)
            if found is None:
                found = self._take_new(wait, room)
            self._note_answer()
            return found
        except (RedisError, OSError) as error:
            self._note_failure(error)
            self._stopped.wait(min(wait, TICK_SECONDS))
            return []

    def _note_failure(self, error: Exception) -> None:
        if not self._away:
            log.error("Redis is unreachable: %s", error)
        self._away = True

    def _note_answer(self) -> None:
        if self._away:
            log.info("Redis is reachable again")
        self._away = False

    def _take_lapsed(self, wait: float) -> Sequence[Lease] | None:
        """Take one expired item; [] if it must wait for items in flight, None if no lease has expired."""
        if any(item.lease is not None and item.lease.deliveries > 1 for item in self._in_flight.all()):
            self._stopped.wait(min(wait, _PAUSE_SECONDS))
            return []
        now = time.monotonic()
        if now - self._overdue_checked_at < TICK_SECONDS:
            return None
        for lane in LANES:
            while self._is_overdue(lane):
                if self._in_flight:
                    self._stopped.wait(min(wait, _PAUSE_SECONDS))
                    return []
                claimed = self._claim(lane)
                if claimed is None:
                    break
                entry, fields, deliveries = claimed
                if fields is not None:
                    lease = self._open(lane, entry, fields, deliveries, time.monotonic())
                    return [lease] if lease is not None else []
        self._overdue_checked_at = now
        return None

    def _is_overdue(self, lane: Lane) -> bool:
        arguments: list[Any] = [GROUP, int(1000 * self._lease_seconds), pause_ms(self._lease_seconds)]
        return bool(self._overdue_script(keys=[self._keys.stream(lane), self._keys["pulse"]], args=arguments))

    def _claim(self, lane: Lane) -> tuple[bytes, dict[bytes, bytes] | None, int] | None:
        """Entry, fields and deliveries of an expired item, or None. A dead letter has no fields."""
        keys = self._keys
        got = self._claim_script(
            keys=[keys["load"], keys.stream(lane), keys["dead"]],
            args=[
                GROUP, self.name, int(1000 * self._lease_seconds), lane, MAX_DELIVERIES, keys.replies,
                int(1000 * REPLY_SECONDS), error_outcome(InferenceError(WORKERS_DIED)), DEAD_LETTERS,
            ],
        )  # fmt: skip
        if not got:
            return None
        entry, deliveries = got[0], int(got[1])
        if len(got) == 2:
            log.error("work %s became a dead letter after %d deliveries", entry.decode(), deliveries - 1)
            self._events.on_dead_letter()
            return entry, None, deliveries
        self._events.on_redelivery()
        return entry, dict(zip(got[2][::2], got[2][1::2], strict=True)), deliveries

    def _take_new(self, wait: float, room: Mapping[Lane, int] | None) -> Sequence[Lease]:
        lanes = [lane for lane in LANES if room is None or room[lane] > 0]
        if not lanes:
            return []
        count = _AT_ONCE
        if room is not None:
            count = max(1, min(_AT_ONCE, *(int(room[lane] / self._mean_rows[lane]) for lane in lanes)))
        block = int(1000 * min(wait, BLOCK_SECONDS))
        pipe = self._client.pipeline(transaction=False)
        pipe.xreadgroup(
            GROUP, self.name, {self._keys.stream(lane): ">" for lane in lanes}, count=count, block=block or None
        )
        pipe.time()
        answer, (seconds, microseconds) = pipe.execute()
        now, redis_ms = time.monotonic(), 1000 * seconds + microseconds // 1000
        leases = []
        for stream, entries in answer or []:
            lane = next(lane for lane in LANES if self._keys.stream(lane) == stream.decode())
            for entry, fields in entries:
                # Measured by Redis' clock: those of services and workers need not agree.
                age = max(0, redis_ms - int(entry.partition(b"-")[0])) / 1000
                lease = self._open(lane, entry, fields, 1, now - age)
                if lease is not None:
                    self._mean_rows[lane] += 0.2 * (len(lease.work.rows) - self._mean_rows[lane])
                    leases.append(lease)
        return leases

    def _open(
        self, lane: Lane, entry: bytes, fields: Mapping[bytes, bytes], deliveries: int, submitted_at: float
    ) -> Lease | None:
        """The lease of a message. A message that cannot be read is settled with the reason, or removed."""
        try:
            found = Entry.read(fields)
        except WireError as wire_error:
            discard(self._client, self._keys.stream(lane), entry, wire_error)
            return None
        error: ServiceError
        try:
            work = self._reader.read(found.payload if found.spooled is None else self._spool.get(found.spooled))
        except ServiceError as spool_error:
            work, error = None, spool_error
        except WireError as wire_error:
            work, error = None, InferenceError(str(wire_error))
        lease = Lease(work, self.name, deliveries, submitted_at) if work is not None else None
        item = found.in_flight(lease, entry, lane)
        self._in_flight.add(item)
        if lease is None:
            log.error("work %s cannot be read: %s", item.id, error)
            self._settler.put(item, WorkResult(None, error))
        return lease

    # --- renewing

    def extend(self, lease: Lease, rows_done: int) -> None:
        """Note that the device makes progress. The renewal itself happens in a thread."""
        item = self._in_flight.find(lease)
        if item is not None:
            item.extended_at = time.monotonic()
            self._in_flight.progress(item, rows_done)

    def _renew_loop(self) -> None:
        beat_at = swept_at = float("-inf")
        every = min(self._lease_seconds / RENEWALS_PER_LEASE, BEAT_SECONDS)
        while not self._stopped.wait(TICK_SECONDS if beat_at > 0 else 0.0):
            now = time.monotonic()
            try:
                if not self._closed.is_set() and now - beat_at >= every:
                    self._beat()
                    beat_at = now
                self._renew()
                if now - swept_at >= SWEEP_SECONDS:
                    swept_at = now
                    self._spool.sweep()
            except (RedisError, OSError) as error:
                self._note_failure(error)
                self._stopped.wait(TICK_SECONDS)
            except Exception as error:  # without this loop all leases lapse
                self._tasks.note_failure("redis-leases", error, "goes on")
                self._stopped.wait(TICK_SECONDS)

    def _beat(self) -> None:
        status = WorkerStatus(self._device, self._in_flight.rows_per_second)
        self._beat_script(
            keys=[self._keys["workers"], self._keys.beats + self.name, self._keys["pulse"]],
            args=[
                self.name, int(1000 * max(self._lease_seconds, 4 * TICK_SECONDS)), status.as_json(),
                pause_ms(self._lease_seconds),
            ],
        )  # fmt: skip

    def _renew(self) -> None:
        alive_since = time.monotonic() - self._stall_seconds
        held = [item for item in self._in_flight.all() if item.extended_at > alive_since or item.settling]
        for lane in LANES:
            by_entry = {item.entry: item for item in held if item.lane == lane}
            if not by_entry:
                continue
            idle_ms = int(1000 * self._lease_seconds / RENEWALS_PER_LEASE)
            lost = self._renew_script(keys=[self._keys.stream(lane)], args=[GROUP, self.name, idle_ms, *by_entry])
            for item in (by_entry[entry.decode()] for entry in lost):
                # Withdrawn, or taken over: the batcher skips it, and settling it has no effect.
                if not item.settling and item.lease is not None:
                    item.lease.abandoned = True
                    self._in_flight.remove(item)

    # --- settling

    def settle(self, lease: Lease, result: WorkResult) -> bool:
        """Whether the lease held when this worker last asked. Redis decides whether the result counts."""
        item = self._in_flight.find(lease)
        if item is None or item.settling:
            return False
        if result.values is not None:
            self._in_flight.progress(item, item.rows)
        self._settler.put(item, result)
        return True
