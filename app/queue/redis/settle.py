"""Outcomes on their way to Redis, in a thread of their own: the device has better to do than to wait for it."""

from __future__ import annotations

import logging
import threading
from queue import Empty, SimpleQueue
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.errors import ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import GROUP, Keys, is_no_group
from scpalm.app.queue.redis.in_flight import InFlight, InFlightWork
from scpalm.app.queue.transport import WorkResult
from scpalm.app.queue.wire import error_outcome, pack_outcome
from scpalm.app.storage.spool import INLINE_BYTES, Spool

log = logging.getLogger("scpalm.redis")

# A reply that nobody fetches so long has nobody waiting.
REPLY_SECONDS = 600.0
RETRY_SECONDS = 0.25


class Settler:
    """Settles works, one after the other; each leaves ``hand`` once Redis has said what became of it."""

    def __init__(self, client: Any, spool: Spool, hand: InFlight, keys: Keys, worker: str) -> None:
        self._spool, self._hand, self._keys, self._worker = spool, hand, keys, worker
        self._settle = client.register_script(scripts.SETTLE)
        self._waiting: SimpleQueue[tuple[InFlightWork, WorkResult] | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="redis-settling", daemon=True)
        self._thread.start()

    def put(self, held: InFlightWork, outcome: WorkResult) -> None:
        held.settling = True
        self._waiting.put((held, outcome))

    def stop(self) -> None:
        """End the thread; what it has not settled lapses."""
        self._stopped.set()
        self._waiting.put(None)
        self._thread.join(5.0)

    def _loop(self) -> None:
        while not self._stopped.is_set():
            try:
                item = self._waiting.get(timeout=1.0)
            except Empty:
                continue
            if item is not None:
                self._send(*item)

    def _send(self, held: InFlightWork, outcome: WorkResult) -> None:
        content, spooled = pack_outcome(outcome), None
        if len(content) > INLINE_BYTES:
            try:
                spooled = self._spool.put(content)
            except ServiceError as error:
                content = error_outcome(error)
        reply = ("spool", spooled) if spooled is not None else ("payload", content)
        counted = self._until_heard(held, *reply)
        if counted is None:
            return
        if not counted:
            log.info("work %s was no longer this worker's", held.id)
        gone = held.spooled if counted else spooled
        if gone is not None:
            self._spool.remove(gone)
        self._hand.remove(held)

    def _until_heard(self, held: InFlightWork, field: str, value: str | bytes) -> bool | None:
        """Whether the lease still held; None when stopped before Redis answered.

        Said again until Redis has heard it: there it counts once, and only for the worker that holds the lease.
        """
        keys = self._keys
        while not self._stopped.is_set():
            try:
                return bool(
                    self._settle(
                        keys=[keys["load"], keys.stream(held.lane), keys.replies + held.to],
                        args=[
                            GROUP, self._worker, held.entry, held.lane, held.rows, held.num_bytes,
                            int(1000 * REPLY_SECONDS), "id", held.id, field, value,
                        ],
                    )
                )  # fmt: skip
            except (RedisError, OSError) as error:
                if is_no_group(error):
                    return False
                self._stopped.wait(RETRY_SECONDS)
        return None
