"""The worker's half of the queue in Redis: take work, keep its lease, settle it. For threads; each call may block."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.errors import InferenceError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import BLOCK_SECONDS, GROUP, Keys
from scpalm.app.queue.redis.in_flight import InFlight, InFlightWork
from scpalm.app.queue.redis.settle import REPLY_SECONDS, Settler
from scpalm.app.queue.redis.status import WorkerStatus
from scpalm.app.queue.transport import LANES, MAX_DELIVERIES, Lane, Lease, WorkResult
from scpalm.app.queue.wire import WireError, WorkReader, error_outcome
from scpalm.app.storage.redis import connect
from scpalm.app.storage.spool import Spool

log = logging.getLogger("scpalm.redis")

TICK_SECONDS = 0.25
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 600.0
DEAD_LETTERS = 1000
_AT_ONCE = 64
_FIRST_GUESS_ROWS = 64.0

_DIED = f"The worker died {MAX_DELIVERIES} times with these cells in hand. Send them in smaller requests to find which."


class Leases:
    """The works that one worker process has in hand.

    A work whose lease lapsed is taken by a worker that has nothing else in hand, and alone: should it be what killed
    the other one, it kills nothing beside itself.

    Args:
        name: of this process, never used again. lease_seconds: how long Redis waits for a sign of life.
        stall_seconds: a worker that stands still so long gets no renewal.
    """

    def __init__(
        self,
        url: str,
        spool: Spool,
        name: str,
        *,
        lease_seconds: float,
        stall_seconds: float,
        on_redelivery: Callable[[], None] = lambda: None,
        on_dead_letter: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._spool = spool
        self._lease_seconds, self._stall_seconds = lease_seconds, stall_seconds
        self._on_redelivery, self._on_dead_letter = on_redelivery, on_dead_letter
        self._client: Any = connect(url)  # its own types leave open whether it is asynchronous
        script = self._client.register_script
        self._renew_script = script(scripts.RENEW)
        self._claim_script, self._overdue_script = script(scripts.CLAIM), script(scripts.OVERDUE)
        self._beat_script = script(scripts.BEAT)
        self._hand = InFlight()
        self._closed = threading.Event()
        self._stopped = threading.Event()
        self._looked_for_overdue = 0.0
        self._mean_rows = dict.fromkeys(LANES, _FIRST_GUESS_ROWS)
        self._thread: threading.Thread | None = None
        self._away = False

    # --- life

    def start(self, keys: Keys, reader: WorkReader, device: str) -> None:
        """Say that this worker lives, and begin to keep its leases."""
        self._keys, self._reader, self._device = keys, reader, device
        self._outbox = Settler(self._client, self._spool, self._hand, keys, self.name)
        self._thread = threading.Thread(target=self._keep_loop, name="redis-leases", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take nothing more."""
        self._closed.set()

    def stop(self) -> None:
        """End the threads; what is not settled lapses."""
        self._closed.set()
        self._stopped.set()
        if self._thread is not None:
            self._outbox.stop()
            self._thread.join(5.0)
            try:
                self._client.delete(self._keys.beats + self.name)
                if not self._hand:
                    for lane in LANES:
                        self._client.xgroup_delconsumer(self._keys.stream(lane), GROUP, self.name)
            except (RedisError, OSError) as error:
                log.warning("Redis was not told that this worker ends: %s", error)
        self._client.close()

    @property
    def idle(self) -> bool:
        return not self._hand

    # --- taking

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        if resume:
            # They may be what killed the thread: they lapse, and come back one by one.
            self._hand.clear()
        if self._closed.is_set():
            self._stopped.wait(min(wait, TICK_SECONDS))
            return []
        try:
            found = self._take_overdue(wait)
            if found is None:
                found = self._take_new(wait, room)
            self._came_back()
            return found
        except (RedisError, OSError) as error:
            self._went_away(error)
            self._stopped.wait(min(wait, TICK_SECONDS))
            return []

    def _went_away(self, error: Exception) -> None:
        if not self._away:
            log.error("Redis is away: %s", error)
        self._away = True

    def _came_back(self) -> None:
        if self._away:
            log.info("Redis is back")
        self._away = False

    def _take_overdue(self, wait: float) -> Sequence[Lease] | None:
        """One lapsed work; none while others are in hand; None where nothing has lapsed."""
        if any(held.lease is not None and held.lease.deliveries > 1 for held in self._hand.all()):
            self._stopped.wait(min(wait, 0.01))
            return []
        now = time.monotonic()
        if now - self._looked_for_overdue < TICK_SECONDS:
            return None
        lease_ms = int(1000 * self._lease_seconds)
        for lane in LANES:
            stream = self._keys.stream(lane)
            while self._overdue_script(keys=[stream], args=[GROUP, lease_ms]):
                if self._hand:
                    self._stopped.wait(min(wait, 0.01))
                    return []
                got = self._claim_script(
                    keys=[self._keys["load"], stream, self._keys["dead"]],
                    args=[
                        GROUP, self.name, lease_ms, lane, MAX_DELIVERIES, self._keys.replies, int(1000 * REPLY_SECONDS),
                        error_outcome(InferenceError(_DIED)), DEAD_LETTERS,
                    ],
                )  # fmt: skip
                if not got:
                    break
                if len(got) == 2:
                    log.error("work %s went to the dead letters after %d deliveries", got[0].decode(), got[1] - 1)
                    self._on_dead_letter()
                    continue
                self._on_redelivery()
                fields = dict(zip(got[2][::2], got[2][1::2], strict=True))
                lease = self._open(lane, got[0], fields, int(got[1]), time.monotonic())
                return [lease] if lease is not None else []
        self._looked_for_overdue = now
        return None

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
                # By Redis' own clock: ours and the service's need not agree.
                age = max(0, redis_ms - int(entry.partition(b"-")[0])) / 1000
                lease = self._open(lane, entry, fields, 1, now - age)
                if lease is not None:
                    self._mean_rows[lane] += 0.2 * (len(lease.work.rows) - self._mean_rows[lane])
                    leases.append(lease)
        return leases

    def _open(
        self, lane: Lane, entry: bytes, fields: Mapping[bytes, bytes], deliveries: int, submitted_at: float
    ) -> Lease | None:
        """The lease of a message; one that cannot be read is settled with the reason."""
        name = fields.get(b"spool")
        error: ServiceError
        try:
            content = self._spool.get(name.decode()) if name is not None else fields[b"payload"]
            work = self._reader.read(content)
        except ServiceError as spool_error:
            work, error = None, spool_error
        except WireError as wire_error:
            work, error = None, InferenceError(str(wire_error))
        lease = Lease(work, self.name, deliveries, submitted_at) if work is not None else None
        held = InFlightWork(
            fields[b"id"].decode(),
            lease,
            entry.decode(),
            lane,
            int(fields[b"rows"]),
            int(fields[b"bytes"]),
            fields[b"to"].decode(),
            name.decode() if name is not None else None,
            time.monotonic(),
        )
        self._hand.add(held)
        if lease is None:
            log.error("work %s cannot be done: %s", held.id, error)
            self._outbox.put(held, WorkResult(None, error))
        return lease

    # --- keeping

    def extend(self, lease: Lease, rows_done: int) -> None:
        held = self._hand.of(lease)
        if held is not None:
            held.kept = time.monotonic()
            self._hand.progress(held, rows_done)

    def _keep_loop(self) -> None:
        beaten = swept = float("-inf")
        while not self._stopped.wait(TICK_SECONDS if beaten > 0 else 0.0):
            now = time.monotonic()
            try:
                if not self._closed.is_set() and now - beaten >= min(self._lease_seconds / 3, BEAT_SECONDS):
                    self._beat()
                    beaten = now
                self._renew()
            except (RedisError, OSError) as error:
                self._went_away(error)
                self._stopped.wait(TICK_SECONDS)
            if now - swept >= SWEEP_SECONDS:
                self._spool.sweep()
                swept = now

    def _beat(self) -> None:
        says = WorkerStatus(self._device, self._hand.rows_per_second)
        self._beat_script(
            keys=[self._keys["workers"], self._keys.beats + self.name],
            args=[self.name, int(1000 * max(self._lease_seconds, 4 * TICK_SECONDS)), says.as_json()],
        )

    def _renew(self) -> None:
        alive_since = time.monotonic() - self._stall_seconds
        in_hand = self._hand.all()
        for lane in LANES:
            mine = {
                held.entry: held for held in in_hand if held.lane == lane and (held.kept > alive_since or held.settling)
            }
            if not mine:
                continue
            lost = self._renew_script(
                keys=[self._keys.stream(lane)], args=[GROUP, self.name, int(1000 * self._lease_seconds / 3), *mine]
            )
            for held in (mine[entry.decode()] for entry in lost):
                # Dismissed, or another worker has it: the batcher leaves it out, and settling it does nothing.
                if not held.settling and held.lease is not None:
                    held.lease.abandoned = True
                    self._hand.remove(held)

    # --- settling

    def settle(self, lease: Lease, outcome: WorkResult) -> bool:
        """True where the lease still held when this worker last heard of it; what counts, Redis decides."""
        held = self._hand.of(lease)
        if held is None or held.settling:
            return False
        if outcome.values is not None:
            self._hand.progress(held, held.rows)
        self._outbox.put(held, outcome)
        return True
