"""The works that a worker process has in hand, and how fast it gets through them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from scpalm.app.queue.throughput import Throughput
from scpalm.app.queue.transport import Lane, Lease


@dataclass(eq=False)
class InFlightWork:
    """One work and its place in Redis.

    Attributes:
        id: of the work. lease: None for a message that could not be read. entry: id of the message in its
            lane's stream. rows, num_bytes: as counted in the queue. to: whose the reply is.
        spooled: name of its payload in the spool.
        kept: when the worker last said that it goes on. settling: the outcome is on its way.
    """

    id: str
    lease: Lease | None
    entry: str
    lane: Lane
    rows: int
    num_bytes: int
    to: str
    spooled: str | None
    kept: float
    rows_done: int = 0
    settling: bool = False


class InFlight:
    """Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, InFlightWork] = {}
        self._throughput = Throughput()
        self._measured_until = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: InFlightWork) -> None:
        with self._lock:
            if not self._held:
                self._measured_until = time.monotonic()
            self._held[held.id] = held

    def of(self, lease: Lease) -> InFlightWork | None:
        """The work of this very lease, if it is still in hand."""
        with self._lock:
            held = self._held.get(lease.work.id)
        return held if held is not None and held.lease is lease else None

    def all(self) -> list[InFlightWork]:
        with self._lock:
            return list(self._held.values())

    def remove(self, held: InFlightWork) -> None:
        with self._lock:
            if self._held.get(held.id) is held:
                del self._held[held.id]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def progress(self, held: InFlightWork, rows_done: int) -> None:
        """Note that so many rows of a work are done."""
        with self._lock:
            rows, now = rows_done - held.rows_done, time.monotonic()
            if rows > 0:
                held.rows_done = rows_done
                self._throughput.observe(now - self._measured_until, rows)
                self._measured_until = now

    @property
    def rows_per_second(self) -> float:
        """While there was work; 0 before."""
        return self._throughput.rows_per_second
