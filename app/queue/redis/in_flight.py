"""The items that a worker process holds, and how fast it gets through them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from scpalm.app.queue.throughput import Throughput
from scpalm.app.queue.transport import Lane, Lease


@dataclass(eq=False)
class InFlightWork:
    """One item and where it is in Redis.

    Attributes:
        id: of the item. lease: None for a message that could not be read. entry: id of the message in its lane's
            stream. rows, num_bytes: as counted in the queue. reply_to: the service that waits for the result.
        spooled: name of the payload in the spool. extended_at: when the worker last reported progress.
        settling: the result is on its way.
    """

    id: str
    lease: Lease | None
    entry: str
    lane: Lane
    rows: int
    num_bytes: int
    reply_to: str
    spooled: str | None
    extended_at: float
    rows_done: int = 0
    settling: bool = False


class InFlight:
    """The items of one process, by their ids. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, InFlightWork] = {}
        self._throughput = Throughput()
        self._measured_until = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: InFlightWork) -> None:
        """Hold an item."""
        with self._lock:
            if not self._items:
                self._measured_until = time.monotonic()
            self._items[item.id] = item

    def find(self, lease: Lease) -> InFlightWork | None:
        """The item of this very lease, if it is still held."""
        with self._lock:
            item = self._items.get(lease.work.id)
        return item if item is not None and item.lease is lease else None

    def all(self) -> list[InFlightWork]:
        """A copy of what is held now."""
        with self._lock:
            return list(self._items.values())

    def remove(self, item: InFlightWork) -> None:
        """Release the item; does nothing when another lease of it has replaced it."""
        with self._lock:
            if self._items.get(item.id) is item:
                del self._items[item.id]

    def clear(self) -> None:
        """Release all items."""
        with self._lock:
            self._items.clear()

    def progress(self, item: InFlightWork, rows_done: int) -> None:
        """Note how many rows of an item are done."""
        with self._lock:
            rows, now = rows_done - item.rows_done, time.monotonic()
            if rows > 0:
                item.rows_done = rows_done
                self._throughput.observe(now - self._measured_until, rows)
                self._measured_until = now

    @property
    def rows_per_second(self) -> float:
        """Measured while there was work; 0 before."""
        return self._throughput.rows_per_second
