"""What follows the session: run the tasks on encoded cells, and settle the items that are done."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from scpalm.app.errors import InferenceError, ServiceError
from scpalm.app.execution.batching import Pending, Segment
from scpalm.app.queue.transport import LANES, Lane, Transport
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.sessions.session import Encoded, Session
from scpalm.model.tasks.task import Values

log = logging.getLogger("scpalm.worker")

# Batches that are encoded and not finished. More would make online cells wait without keeping the device busier.
MOST_UNFINISHED = 2


@dataclass(eq=False)
class _Piece:
    """One segment of a batch with what the session computed for it."""

    segment: Segment
    encoded: Encoded
    batch: _Unfinished


@dataclass(eq=False)
class _Unfinished:
    """A batch with so many pieces left."""

    pieces: int


class BusyTime:
    """Counts the seconds in which at least one of several threads works on a batch."""

    def __init__(self, metrics: Metrics, device: str) -> None:
        self._metrics, self._device = metrics, device
        self._lock = threading.Lock()
        self._working, self._counted_until = 0, 0.0

    def start(self) -> float:
        """A thread starts to work. Returns the time."""
        now = time.monotonic()
        with self._lock:
            if not self._working:
                self._counted_until = now
            self._working += 1
        return now

    def stop(self, started: float, task: str = "") -> None:
        """A thread has worked since ``started``, on ``task`` if that is measured."""
        now = time.monotonic()
        with self._lock:
            self._working -= 1
            self._metrics.device_busy.inc(max(0.0, now - self._counted_until))
            self._counted_until = now
        if task:
            self._metrics.inference_duration.labels(task, self._device).observe(now - started)


class Finisher:
    """Holds encoded batches until their tasks have run: one runs, and one more may wait. Online cells come first.

    Attributes:
        busy: the time in which batches were computed.
    """

    def __init__(self, session: Session, transport: Transport, metrics: Metrics) -> None:
        self._session, self._transport, self._metrics = session, transport, metrics
        self.busy = BusyTime(metrics, session.info.device)
        self._pieces: dict[Lane, deque[_Piece]] = {lane: deque() for lane in LANES}
        self._unfinished = 0  # batches
        self._changed = threading.Condition()
        self._in_flight: dict[str, Pending] = {}
        self._settling = threading.Lock()

    # --- items

    def accept(self, pending: Pending) -> None:
        """Note an item that was leased, so that its lease is renewed until it is settled."""
        self._in_flight[pending.lease.work.id] = pending

    def renew(self) -> None:
        """Renew the lease of every item that is not settled."""
        for pending in list(self._in_flight.values()):
            self._transport.extend(pending.lease, pending.rows_done)

    def settle(self, pending: Pending, error: ServiceError | None = None) -> None:
        """End an item with its values, or with an error. Safe from any thread; the first call counts."""
        with self._settling:
            if pending.settled:
                return
            pending.settled = True
        self._in_flight.pop(pending.lease.work.id, None)
        if not self._transport.settle(pending.lease, pending.result(error)):
            return
        if pending.lease.abandoned:
            self._metrics.drop("client_gone")
        elif error is not None:
            self._metrics.drop("inference_failed")

    # --- batches

    def put(self, segments: Sequence[Segment], encoded: Encoded, timeout: float) -> bool:
        """Take over a batch whose cells are those of ``segments``, in order. False if ``timeout`` seconds are over."""
        batch = _Unfinished(len(segments))
        with self._changed:
            if not self._changed.wait_for(lambda: self._unfinished < MOST_UNFINISHED, timeout):
                return False
            self._unfinished += 1
            offset = 0
            for segment in segments:
                part = encoded.slice(offset, offset + len(segment))
                offset += len(segment)
                self._pieces[segment.pending.lane].append(_Piece(segment, part, batch))
            self._changed.notify_all()
        return True

    def finish_next(self, timeout: float) -> bool:
        """Finish one segment. False if there was none within ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(self._pieces.values()), timeout):
                return False
            piece = next(self._pieces[lane] for lane in LANES if self._pieces[lane]).popleft()
        if not piece.segment.pending.settled:
            self._finish(piece.segment, piece.encoded)
        with self._changed:
            piece.batch.pieces -= 1
            if not piece.batch.pieces:
                self._unfinished -= 1
                self._changed.notify_all()
        return True

    def _finish(self, segment: Segment, encoded: Encoded) -> None:
        pending = segment.pending
        try:
            values = self._run_tasks(segment, encoded)
        except InferenceError as error:
            self.settle(pending, error)
            return
        pending.fill(segment.start, len(segment), values)
        for task in pending.lease.work.tasks:
            self._metrics.rows.labels(pending.lane, task.name).inc(len(segment))
        if pending.finished:
            self.settle(pending)
        else:
            self._transport.extend(pending.lease, pending.rows_done)

    def _run_tasks(self, segment: Segment, encoded: Encoded) -> dict[str, Values]:
        """Values ``[B, ...]`` of every task, by output, for one segment. Raises InferenceError."""
        work = segment.pending.lease.work
        results: dict[str, Values] = {}
        for task in work.tasks:
            started = self.busy.start()
            try:
                values = task.run(self._session, encoded, work.first + segment.start)
            except Exception as error:  # the other requests of the batch go on
                log.exception("task %s failed on request %s", task.name, work.request)
                raise InferenceError(f"'{task.name}' failed with {type(error).__name__}. Send fewer cells.") from error
            finally:
                # The duration of `embed` is that of the session.
                self.busy.stop(started, "" if task.name == "embed" else task.name)
            bad = task.first_bad_row(values)
            if bad is not None:
                cell = work.first + segment.start + bad
                raise InferenceError(f"The model returned a value that is not finite for the cell at row {cell}.")
            results |= values
        return results
