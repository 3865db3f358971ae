"""The seam between requests and devices: work goes in, outcomes come back. One Protocol, one object a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import uuid4

from scpalm.app.errors import ServiceError
from scpalm.model.genes.rows import Rows
from scpalm.model.tasks.task import BoundTask, Values

Lane = Literal["online", "bulk"]
LANES: tuple[Lane, ...] = ("online", "bulk")

LEASE_SECONDS = 10.0
MAX_DELIVERIES = 3


@dataclass(frozen=True, eq=False)
class WorkItem:
    """Cells that somebody waits for.

    Attributes:
        tasks: what to compute. rows: B cells, in order. lane: who waits, a person or a file.
        first: which cell of the request the first row is. request: works of one request share one turn.
    """

    tasks: tuple[BoundTask, ...]
    rows: Rows
    lane: Lane = "online"
    first: int = 0
    request: str = field(default_factory=lambda: uuid4().hex)
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, eq=False)
class WorkResult:
    """What became of a Work.

    Attributes:
        values: of each output by its name ``[B, ...]``, in the order of the rows; None when ``error`` says why not.
        queue_seconds: from submission until the first row reached the device.
        inference_seconds: from then until the last row was done.
    """

    values: dict[str, Values] | None
    error: ServiceError | None = None
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(eq=False)
class Lease:
    """A Work in the hands of one worker, until it is settled or the lease runs out.

    Attributes:
        deliveries: how often the work was handed out, this time included.
        submitted_at: ``time.monotonic()`` of the submission.
        abandoned: nobody waits for the outcome any more.
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
        rows: cells not yet done, by lane. oldest_seconds: age of the oldest unfinished work, by lane.
        full: whether a further request would be turned away.
        retry_after: seconds until what waits now is done at the measured speed, at least 1.
        workers: that live, where they are other processes.
    """

    rows: dict[Lane, int]
    oldest_seconds: dict[Lane, float]
    full: bool
    retry_after: int
    workers: int | None = None


class Transport(Protocol):
    """`admit`, `submit`, `reply`, `dismiss`: for the service, on its event loop; the rest: for a worker's threads."""

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        """Keep room for works of a request that are still to come; `dismiss` must follow.

        Raises QueueFullError (with ``retry_after``), DrainingError, or NotReadyError and StorageFullError where the
        queue is elsewhere and cannot take it.
        """
        ...

    async def dismiss(self, request: str) -> None:
        """End an admission: room that is left is given back, and works that are not settled yet are abandoned."""
        ...

    async def submit(self, work: WorkItem) -> None:
        """Queue work, once. Raises what `admit` does; only the last two when its request was admitted."""
        ...

    async def reply(self, work_id: str) -> WorkResult:
        """Wait for the outcome of submitted work. Cancelling this wait abandons the work."""
        ...

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        """Take waiting work, oldest first; block up to ``wait`` seconds for some.

        ``room`` is how many rows of each lane the worker can use soon; where other workers take from the same queue,
        little more is handed out. ``resume``: the worker was restarted and its unfinished work is to be done again.
        """
        ...

    def extend(self, lease: Lease, rows_done: int) -> None:
        """Keep a lease, and report how many of its rows are done so far."""
        ...

    def settle(self, lease: Lease, outcome: WorkResult) -> bool:
        """End a lease. True when this was the first outcome of the work; a later one changes nothing."""
        ...

    def depth(self) -> Depth:
        """What waits now."""
        ...

    def fault(self) -> ServiceError | None:
        """Why no work can be taken now, where the queue or its workers are elsewhere; None when it can."""
        ...

    def close(self) -> None:
        """Take no new work; what was taken is still finished."""
        ...

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is leased."""
        ...
