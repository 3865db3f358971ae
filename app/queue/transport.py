"""The interface between requests and devices: work goes in, results come back. Each transport implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import uuid4

from scpalm.app.errors import ServiceError
from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import SessionInfo
from scpalm.model.tasks.task import BoundTask, Values

Lane = Literal["online", "bulk"]
LANES: tuple[Lane, ...] = ("online", "bulk")

LEASE_SECONDS = 10.0
# How often a lease is renewed before it would lapse.
RENEWALS_PER_LEASE = 3
# Work that was leased this many times without a result becomes a dead letter.
MAX_DELIVERIES = 3
WORKERS_DIED = f"{MAX_DELIVERIES} workers died while they held these cells. Send them in smaller requests."


@dataclass(frozen=True)
class Turn:
    """Whose turn in the queue a request waits for.

    Attributes:
        lane: ``online`` for a waiting person, ``bulk`` for a file.
        client: who sent it: an API key or an address. Clients take turns, and then the requests of each.
    """

    lane: Lane
    client: str = ""


@dataclass(frozen=True, eq=False)
class WorkItem:
    """Cells to compute.

    Attributes:
        tasks: what to compute. rows: B cells, in order.
        lane: ``online`` for a waiting person, ``bulk`` for a file.
        first: position in the request of the first row. request: items of one request share one turn.
        client: see `Turn`.
    """

    tasks: tuple[BoundTask, ...]
    rows: Rows
    lane: Lane = "online"
    first: int = 0
    request: str = field(default_factory=lambda: uuid4().hex)
    client: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, eq=False)
class WorkResult:
    """The result of a WorkItem.

    Attributes:
        values: ``[B, ...]`` of each output by its name, in the order of the rows; None when there is an error.
        queue_seconds: from submission until the first row reached the device.
        inference_seconds: from then until the last row was done.
    """

    values: dict[str, Values] | None
    error: ServiceError | None = None
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(eq=False)
class Lease:
    """A WorkItem held by one worker, until it is settled or the lease lapses.

    Attributes:
        deliveries: how often the item was leased, including this time.
        submitted_at: ``time.monotonic()`` of the submission.
        abandoned: no request waits for the result any more.
    """

    work: WorkItem
    worker: str
    deliveries: int
    submitted_at: float
    abandoned: bool = False


@dataclass(frozen=True)
class Depth:
    """How much waits, read at one moment.

    Attributes:
        rows: unfinished cells, by lane. oldest_seconds: age of the oldest unfinished item, by lane.
        full: a further request would be refused.
        retry_after: seconds until the waiting cells are done at the measured speed, at least 1.
        workers: number of live worker processes; None when the device is in this process.
    """

    rows: dict[Lane, int]
    oldest_seconds: dict[Lane, float]
    full: bool
    retry_after: int
    workers: int | None = None


class Transport(Protocol):
    """A queue with two sides. The service calls the coroutines on its event loop; worker threads call the rest.

    Life: `start`, then on a worker `serve_leases`, then `close` (no new work), then `stop`.
    """

    # --- life

    async def start(self, bundle: Bundle, on_wait: Callable[[str], object]) -> None:
        """Connect to the queue of this bundle, and wait while its server is unreachable.

        ``on_wait`` receives a message that says what is missing. Raises QueueError if the server cannot be used.
        """
        ...

    def serve_leases(self, info: SessionInfo) -> None:
        """Announce this process as a worker, once its session can run. Call `start` first."""
        ...

    def close(self) -> None:
        """Accept no new work; accepted work is still finished."""
        ...

    async def stop(self) -> None:
        """End connections and threads. Also valid before `start`."""
        ...

    # --- the service's side

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        """Reserve room for items of a request that are still to come. `dismiss` must follow.

        Raises QueueFullError (with ``retry_after``) or DrainingError. Raises NotReadyError or StorageFullError when
        the queue's server is away or full.
        """
        ...

    async def dismiss(self, request: str) -> None:
        """End an admission: unused room is released, and unsettled items are abandoned."""
        ...

    async def submit(self, work: WorkItem) -> None:
        """Queue an item, once. Raises what `admit` raises; only the last two when its request was admitted."""
        ...

    async def reply(self, work_id: str) -> WorkResult:
        """Wait for the result of a submitted item. Cancelling this wait abandons the item."""
        ...

    # --- the worker's side

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        """Take waiting items, oldest first; block up to ``wait`` seconds for some.

        Args:
            room: rows of each lane that the worker can use soon. A queue with several workers hands out little more.
            resume: the worker was restarted, so its unfinished items are due again.
        """
        ...

    def extend(self, lease: Lease, rows_done: int) -> None:
        """Renew a lease, and report how many of its rows are done."""
        ...

    def settle(self, lease: Lease, result: WorkResult) -> bool:
        """End a lease. True when this was the first result of the item; later ones change nothing."""
        ...

    # --- both sides

    def depth(self) -> Depth:
        """How much waits now."""
        ...

    def fault(self) -> ServiceError | None:
        """Why no work can be accepted now, when the server or the workers are away; else None."""
        ...

    @property
    def in_use(self) -> bool:
        """Whether other processes may submit work, or their work waits: a worker must not leave this queue yet."""
        ...

    @property
    def devices(self) -> Sequence[str]:
        """Devices of live worker processes, such as ``["cpu", "cuda:0"]``; empty when the device is in this process."""
        ...

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is leased."""
        ...
