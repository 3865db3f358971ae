"""Reads the replies that workers leave in Redis for one service, at least once each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.background import Beat, cancel_until_done
from scpalm.app.errors import InferenceError, ServiceError
from scpalm.app.queue.transport import WorkResult
from scpalm.app.queue.wire import WireError, read_outcome
from scpalm.app.storage.spool import Spool

log = logging.getLogger("scpalm.redis")

AT_ONCE = 8
BLOCK_MS = 1000


class Listener:
    """Calls ``on_reply`` with the id of an item and its result. A reply may be delivered twice."""

    def __init__(self, client: Any, spool: Spool, stream: str, on_reply: Callable[[str, WorkResult], None]) -> None:
        self._client, self._spool, self._stream, self._on_reply = client, spool, stream, on_reply
        self._fetching: set[asyncio.Task[None]] = set()

    async def run(self, beat: Beat) -> None:
        """Read replies until cancelled."""
        last, read = "0-0", list[Any]()
        while True:
            try:
                if read:
                    await self._client.xdel(self._stream, *read)
                    read = []
                found = await self._client.xread({self._stream: last}, count=AT_ONCE, block=BLOCK_MS)
                for entry, fields in found[0][1] if found else []:
                    last = entry
                    read.append(entry)
                    self._take(fields)
                beat()
            except (RedisError, OSError) as error:
                log.debug("waiting for Redis: %s", error)
                # Start over: a Redis that lost its data numbers its entries from the start.
                last, read = "0-0", []
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End the fetching of spooled replies."""
        await cancel_until_done(self._fetching)

    def _take(self, fields: dict[bytes, bytes]) -> None:
        if b"id" not in fields or not fields.keys() & {b"spool", b"payload"}:
            log.error("a reply in Redis has the fields %s; it is left out", sorted(fields))
            return
        # An id that is not text is one that this service did not send.
        work_id, spooled = fields[b"id"].decode(errors="replace"), fields.get(b"spool")
        if spooled is None:
            self._on_reply(work_id, _read(fields[b"payload"]))
            return
        task = asyncio.create_task(self._fetch(work_id, spooled.decode(errors="replace")))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _fetch(self, work_id: str, name: str) -> None:
        try:
            result = _read(await asyncio.to_thread(self._spool.get, name))
        except ServiceError as error:
            result = WorkResult(None, error)
        self._on_reply(work_id, result)
        await asyncio.to_thread(self._spool.remove, name)


def _read(content: bytes) -> WorkResult:
    try:
        return read_outcome(content)
    except WireError as error:
        return WorkResult(None, InferenceError(str(error)))
