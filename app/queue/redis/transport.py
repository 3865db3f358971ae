"""The transport over Redis Streams: many services, many workers, and no work lost when one of them dies.

There is one stream per lane, with one consumer group. A message is an item. It stays in the stream until it is settled:
one script then deletes the message, reduces the load and adds the reply, only for the worker that holds the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from redis.exceptions import RedisError

from scpalm.app.errors import ServiceError
from scpalm.app.queue.redis.connection import Keys
from scpalm.app.queue.redis.leases import Leases
from scpalm.app.queue.redis.requests import Requests
from scpalm.app.queue.registry import QueueOptions
from scpalm.app.queue.transport import Depth, Lane, Lease, WorkItem, WorkResult
from scpalm.app.queue.wire import WorkReader
from scpalm.app.storage.redis import as_service_error
from scpalm.app.storage.spool import Spool
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import SessionInfo

log = logging.getLogger("scpalm.redis")

CONNECT_AGAIN_SECONDS = 0.5


class RedisTransport:
    """See `scpalm.app.queue.transport.Transport`. The limits on rows and bytes hold for the whole queue.

    Raises QueueError for a malformed URL.
    """

    def __init__(self, options: QueueOptions, spool: Spool) -> None:
        name = uuid4().hex[:16]
        self._requests = Requests(options, spool, f"service-{name}")
        self._leases = Leases(options, spool, f"worker-{name}")

    # --- life

    async def start(self, bundle: Bundle, on_wait: Callable[[str], object]) -> None:
        self._bundle = bundle
        self._keys = Keys.of(bundle)
        waits = False
        while True:
            try:
                await self._requests.start(self._keys)
                return
            except (RedisError, OSError) as error:
                if not waits:
                    log.warning("waiting for Redis: %s", error)
                waits = True
                on_wait(as_service_error(error).detail)
                await asyncio.sleep(CONNECT_AGAIN_SECONDS)

    def serve_leases(self, info: SessionInfo) -> None:
        self._leases.start(self._keys, WorkReader(self._bundle, info), info.device)

    def close(self) -> None:
        self._requests.close()
        self._leases.close()

    async def stop(self) -> None:
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
        return self._leases.lease(wait, room=room, resume=resume)

    def extend(self, lease: Lease, rows_done: int) -> None:
        self._leases.extend(lease, rows_done)

    def settle(self, lease: Lease, result: WorkResult) -> bool:
        return self._leases.settle(lease, result)

    # --- both sides

    def depth(self) -> Depth:
        return self._requests.depth()

    def fault(self) -> ServiceError | None:
        return self._requests.view.fault()

    @property
    def in_use(self) -> bool:
        return self._requests.view.in_use

    @property
    def devices(self) -> Sequence[str]:
        status = self._requests.view.status
        return sorted({worker.device for worker in status.workers.values()}) if status is not None else ()

    @property
    def idle(self) -> bool:
        return self._requests.idle and self._leases.idle
