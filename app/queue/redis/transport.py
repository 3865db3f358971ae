"""The queue in Redis Streams: many services, many workers, and nothing lost when one of them dies.

One stream a lane and one consumer group. A message is a work; it stays in the stream until it is settled, which takes
the message away, counts its rows off and adds the reply, in one piece and only for the worker that holds its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from scpalm.app.errors import ServiceError
from scpalm.app.queue.redis.connection import Keys
from scpalm.app.queue.redis.leases import Leases
from scpalm.app.queue.redis.requests import Requests
from scpalm.app.queue.redis.status import Status
from scpalm.app.queue.transport import LEASE_SECONDS, Depth, Lane, Lease, WorkItem, WorkResult
from scpalm.app.queue.wire import WorkReader
from scpalm.app.storage.spool import Spool
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import SessionInfo


class RedisTransport:
    """Transport between processes, bounded in rows and bytes of the whole queue. `start` it before use.

    Raises QueueError for an address that is none, SpoolError for a spool that cannot be used.
    """

    def __init__(
        self,
        url: str,
        spool: Spool,
        *,
        max_rows: int,
        max_bytes: int,
        lease_seconds: float = LEASE_SECONDS,
        stall_seconds: float = 60.0,
        on_redelivery: Callable[[], None] = lambda: None,
        on_dead_letter: Callable[[], None] = lambda: None,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        name = uuid4().hex[:16]
        self._requests = Requests(
            url,
            spool,
            f"service-{name}",
            max_rows=max_rows,
            max_bytes=max_bytes,
            lease_seconds=lease_seconds,
            on_drop=on_drop,
        )
        self._leases = Leases(
            url,
            spool,
            f"worker-{name}",
            lease_seconds=lease_seconds,
            stall_seconds=stall_seconds,
            on_redelivery=on_redelivery,
            on_dead_letter=on_dead_letter,
        )

    async def start(self, bundle: Bundle) -> None:
        """Connect, for the queue of this bundle. Raises QueueError, RedisError."""
        self._bundle = bundle
        self._keys = Keys.of(bundle)
        await self._requests.start(self._keys)

    def start_leases(self, info: SessionInfo) -> None:
        """For a worker, once its session can run: others see it from now on."""
        self._leases.start(self._keys, WorkReader(self._bundle, info), info.device)

    async def stop(self) -> None:
        """End connections and threads."""
        await asyncio.to_thread(self._leases.stop)
        await self._requests.stop()

    # --- the service's side

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        await self._requests.admit(request, num_rows, lane)

    async def dismiss(self, request: str) -> None:
        await self._requests.dismiss(request)

    async def submit(self, work: WorkItem) -> None:
        await self._requests.submit(work)

    async def reply(self, work_id: str) -> WorkResult:
        return await self._requests.reply(work_id)

    # --- the worker's side

    def lease(
        self, worker: str, wait: float, *, room: Mapping[Lane, int] | None = None, resume: bool = False
    ) -> Sequence[Lease]:
        return self._leases.lease(worker, wait, room=room, resume=resume)

    def extend(self, lease: Lease, rows_done: int) -> None:
        self._leases.extend(lease, rows_done)

    def settle(self, lease: Lease, outcome: WorkResult) -> bool:
        return self._leases.settle(lease, outcome)

    # --- both sides

    @property
    def status(self) -> Status | None:
        """The queue and its workers as last seen."""
        return self._requests.view.status

    def depth(self) -> Depth:
        return self._requests.depth()

    def fault(self) -> ServiceError | None:
        return self._requests.view.fault()

    def close(self) -> None:
        self._requests.close()
        self._leases.close()

    @property
    def idle(self) -> bool:
        return self._requests.idle and self._leases.idle
