"""A worker owns one device: lease, form a batch, encode, run tasks, settle.

One batch is formed ahead of the device. A GPU encodes the next batch while tasks run on the one before it; on a CPU
that would only make both take twice as long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from scpalm.app.errors import ClientGoneError, InferenceError
from scpalm.app.execution.batching import BULK_SHARE, Batch, Batcher, Segment
from scpalm.app.execution.finishing import Finisher
from scpalm.app.queue.transport import LANES, Lane, Lease, Transport
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.sessions.session import Encoded, Session

log = logging.getLogger("scpalm.worker")

# How often an idle loop wakes to show that it is alive.
TICK_SECONDS = 0.5
# How often the forming loop, while a full batch waits for the device, checks for a request that should join it.
LOOK_SECONDS = 0.02


class Worker:
    """Threads: one forms the next batch, one runs the session; for a GPU, one finishes what that computed.

    When one of them dies, the others end. The slot between the first two holds the one batch formed ahead. Until the
    device takes it, the batch is formed again with the cells that have arrived. So neither a small batch nor one full
    of a large file delays later cells by a turn.

    Args:
        batch_rows: most rows in a batch. name: of the device, for leases and log lines.
    """

    def __init__(
        self, session: Session, transport: Transport, metrics: Metrics, *, batch_rows: int, name: str = "device-0"
    ) -> None:
        self._session = session
        self._transport = transport
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._name = name
        self._finisher = Finisher(session, transport, metrics)
        self._overlaps = session.info.device != "cpu"
        self._batcher = Batcher(batch_rows)
        self._slot: Batch | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._failed = False
        self._moved = dict.fromkeys(("forming", "running"), time.monotonic())
        self._threads: list[threading.Thread] = []

    # --- life

    def start(self, *, resume: bool = False) -> None:
        """Start the threads. ``resume``: take back what a dead worker of this name left unfinished."""
        loops: dict[str, Callable[[], None]] = {
            "forming": partial(self._form_loop, resume=resume),
            "running": self._device_loop,
        }
        if self._overlaps:
            loops["finishing"] = self._finish_loop
            self._moved["finishing"] = time.monotonic()
        for name, loop in loops.items():
            thread = threading.Thread(target=self._guarded, args=(loop,), name=f"{self._name}-{name}", daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """All threads run. Also true before `start`, when no thread exists."""
        return not self._failed and all(thread.is_alive() for thread in self._threads)

    def stalled_seconds(self) -> float:
        """Seconds since the slowest loop made progress. A loop makes none while it computes a batch."""
        return time.monotonic() - min(self._moved.values())

    def renew(self) -> None:
        """Renew every lease. The supervisor calls it RENEWALS_PER_LEASE times per lease."""
        self._finisher.renew()

    def stop(self, timeout: float = 5.0) -> None:
        """End the threads after the running batch; leased work stays unsettled."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException:  # of any kind: the other threads must not go on alone
            log.exception("worker %s died", self._name)
            self._failed = True
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()

    # --- forming

    def _form_loop(self, *, resume: bool) -> None:
        full = False
        while not self._stopping:
            self._moved["forming"] = time.monotonic()
            full = full and self._still_full()
            wait = 0.0 if full or self._batcher.has_rows else TICK_SECONDS
            leases = self._transport.lease(self._name, wait, room=self._room(), resume=resume)
            resume = False
            for lease in leases:
                self._finisher.accept(self._batcher.add(lease))
            for pending in self._batcher.take_abandoned():
                self._finisher.settle(pending, _client_gone())
            if self._batcher.has_rows and not (full and not self._left_out(leases)):
                full = self._form()

    def _room(self) -> dict[Lane, int]:
        """Rows that still fit into the next batch, by lane. Online rows may replace bulk rows that are in the slot."""
        slot = self._slot
        segments = slot.segments if slot is not None else []
        free = self._batch_rows - sum(map(len, segments))
        bulk = sum(len(segment) for segment in segments if segment.pending.lane == "bulk")
        replaceable = {"online": max(0, bulk - int(np.ceil(self._batch_rows * BULK_SHARE))), "bulk": 0}
        return {lane: free + replaceable[lane] - self._batcher.rows_left(lane) for lane in LANES}

    def _still_full(self) -> bool:
        """Whether the device has not taken the full batch yet, after a short wait."""
        with self._changed:
            if self._slot is not None:
                self._changed.wait(LOOK_SECONDS)
            return self._slot is not None

    def _left_out(self, leases: Sequence[Lease]) -> bool:
        slot = self._slot
        return bool(leases) and slot is not None and self._batcher.left_out(slot)

    def _form(self) -> bool:
        """Form the next batch, or the one in the slot again, and put it there. True when it is full."""
        with self._changed:
            early, self._slot = self._slot, None
        batch = self._batcher.form(early)
        if batch is None:
            return False
        batch.assemble()
        with self._changed:
            self._slot = batch
            self._changed.notify_all()
        # Rows that still wait did not fit.
        return self._batcher.has_rows or batch.num_rows >= self._batch_rows

    # --- running

    def _device_loop(self) -> None:
        while True:
            self._moved["running"] = time.monotonic()
            with self._changed:
                if self._slot is None:
                    if self._stopping:
                        return
                    self._changed.wait(TICK_SECONDS)
                batch, self._slot = self._slot, None
                self._changed.notify_all()
            if batch is not None:
                self._run(batch)

    def _run(self, batch: Batch) -> None:
        for segment in batch.segments:
            if segment.pending.lease.abandoned and not segment.pending.settled:
                self._finisher.settle(segment.pending, _client_gone())
        batch.drop_settled()
        if not batch.segments:
            return
        now = time.monotonic()
        for segment in batch.segments:
            if segment.pending.start(now):
                self._metrics.queue_duration.labels(segment.pending.lane).observe(
                    now - segment.pending.lease.submitted_at
                )
        self._metrics.batch_rows.observe(batch.num_rows)
        self._metrics.batch_fill_ratio.observe(batch.num_rows / self._batch_rows)
        self._metrics.batch_requests.observe(len({id(segment.pending) for segment in batch.segments}))
        self._bisect(batch)

    def _bisect(self, batch: Batch) -> None:
        """Run a batch. When it fails, run its halves, until the request at fault is alone."""
        batch.drop_settled()
        if not batch.segments:
            return
        try:
            encoded = self._timed_run(batch)
        except Exception as error:
            requests = {id(segment.pending): segment.pending for segment in batch.segments}
            if len(requests) == 1:
                log.exception("the session failed on request %s", batch.segments[0].pending.lease.work.id)
                detail = (
                    f"The model failed with {type(error).__name__}. "
                    "Send the cells in smaller requests to find out which cell causes it."
                )
                self._finisher.settle(batch.segments[0].pending, InferenceError(detail))
                return
            log.warning("a batch of %d requests failed (%s): bisecting", len(requests), error)
            middle = len(batch.segments) // 2
            for half in (batch.segments[:middle], batch.segments[middle:]):
                smaller = Batch(list(half))
                smaller.assemble()
                self._bisect(smaller)
            return
        self._hand_over(batch.segments, encoded)

    def _timed_run(self, batch: Batch) -> Encoded:
        assert batch.rows is not None
        started = self._finisher.busy.start()
        try:
            encoded = self._session.encode(batch.rows, tokens=_needs_tokens(batch.segments))
        finally:
            self._moved["running"] = time.monotonic()
            self._finisher.busy.stop(started, "embed")
        if len(encoded) != len(batch.rows):
            raise ValueError(f"the session returned {len(encoded)} rows for {len(batch.rows)}")
        return encoded

    # --- finishing

    def _hand_over(self, segments: Sequence[Segment], encoded: Encoded) -> None:
        while not self._failed and not self._finisher.put(segments, encoded, TICK_SECONDS):
            self._moved["running"] = time.monotonic()
        while not self._overlaps and self._finisher.finish_next(0):
            self._moved["running"] = time.monotonic()

    def _finish_loop(self) -> None:
        running = next(thread for thread in self._threads if thread.name.endswith("running"))
        last = False
        while not last:
            last = self._stopping and not running.is_alive()  # nothing follows what waits now
            self._moved["finishing"] = time.monotonic()
            while self._finisher.finish_next(0 if last else TICK_SECONDS):
                self._moved["finishing"] = time.monotonic()


def _client_gone() -> ClientGoneError:
    return ClientGoneError("The client closed the connection before its cells reached the device.")


def _needs_tokens(segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """``[B]``: the cells of requests with a task that reads h_C or codes."""
    needed = [any(task.needs_tokens for task in segment.pending.lease.work.tasks) for segment in segments]
    return np.repeat(needed, [len(segment) for segment in segments])
