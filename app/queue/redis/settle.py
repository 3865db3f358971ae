"""Sends results to Redis from its own thread, so that the device never waits for Redis."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.errors import ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import Keys, is_no_group
from scpalm.app.queue.redis.in_flight import InFlight, InFlightWork
from scpalm.app.queue.redis.lease_scripts import GROUP
from scpalm.app.queue.transport import WorkResult
from scpalm.app.queue.wire import error_outcome, pack_outcome
from scpalm.app.storage.spool import INLINE_BYTES, Spool

log = logging.getLogger("scpalm.redis")

# A reply that was not fetched for so long has no reader.
REPLY_SECONDS = 600.0
RETRY_SECONDS = 0.25


class Settler:
    """Settles items one after the other; each leaves ``in_flight`` once Redis has answered.

    Attributes:
        on_failure: called when an item could not be settled for an unexpected reason.
    """

    def __init__(self, client: Any, spool: Spool, in_flight: InFlight, keys: Keys, worker: str) -> None:
        self._spool, self._in_flight, self._keys, self._worker = spool, in_flight, keys, worker
        self._settle = client.register_script(scripts.SETTLE)
        self._waiting: SimpleQueue[tuple[InFlightWork, WorkResult] | None] = SimpleQueue()
        self._stopped = threading.Event()
        self.on_failure: Callable[[Exception], object] = lambda error: None
        self._thread = threading.Thread(target=self._loop, name="redis-settling", daemon=True)
        self._thread.start()

    def put(self, item: InFlightWork, result: WorkResult) -> None:
        """Settle an item soon."""
        item.settling = True
        self._waiting.put((item, result))

    def stop(self) -> None:
        """End the thread; leases of unsettled items lapse."""
        self._stopped.set()
        self._waiting.put(None)
        self._thread.join(5.0)

    def _loop(self) -> None:
        while not self._stopped.is_set():
            try:
                waiting = self._waiting.get(timeout=1.0)
            except Empty:
                continue
            if waiting is None:
                continue
            try:
                self._send(*waiting)
            except Exception as error:  # the item's lease lapses, and another worker takes it
                self.on_failure(error)
                self._in_flight.remove(waiting[0])

    def _send(self, item: InFlightWork, result: WorkResult) -> None:
        content, spooled = pack_outcome(result), None
        if len(content) > INLINE_BYTES:
            try:
                spooled = self._spool.put(content)
            except ServiceError as error:
                content = error_outcome(error)
        reply = ("spool", spooled) if spooled is not None else ("payload", content)
        settled = self._settle_until_answered(item, *reply)
        if settled is None:
            return
        if not settled:
            log.info("the lease of work %s has lapsed: its result was refused", item.id)
        unused = item.spooled if settled else spooled
        if unused is not None:
            self._spool.remove(unused)
        self._in_flight.remove(item)

    def _settle_until_answered(self, item: InFlightWork, field: str, value: str | bytes) -> bool | None:
        """Whether the lease still held; None when stopped before Redis answered.

        Safe to repeat: the script counts once, and only for the worker that holds the lease.
        """
        keys = self._keys
        while not self._stopped.is_set():
            try:
                return bool(
                    self._settle(
                        keys=[keys["load"], keys.stream(item.lane), keys.replies + item.reply_to],
                        args=[
                            GROUP, self._worker, item.entry, item.lane, item.rows, item.num_bytes,
                            int(1000 * REPLY_SECONDS), "id", item.id, field, value,
                        ],
                    )
                )  # fmt: skip
            except (RedisError, OSError) as error:
                if is_no_group(error):
                    return False
                self._stopped.wait(RETRY_SECONDS)
        return None
