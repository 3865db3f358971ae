"""The service's half of the queue in Redis: admit, submit, wait for replies. Everything here is on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.background import end
from scpalm.app.errors import DrainingError, NotReadyError, QueueFullError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import GROUP, Keys, prepare
from scpalm.app.queue.redis.replies import Listener
from scpalm.app.queue.redis.status import View
from scpalm.app.queue.throughput import seconds_for
from scpalm.app.queue.transport import Depth, Lane, WorkItem, WorkResult
from scpalm.app.queue.wire import pack_work
from scpalm.app.storage.redis import as_service_error, connect_async
from scpalm.app.storage.spool import INLINE_BYTES, Spool

log = logging.getLogger("scpalm.redis")

STATUS_SECONDS = 0.5


@dataclass(eq=False)
class _Sent:
    """A work that somebody waits for. ``entry`` is its place in the stream, None until Redis has it."""

    work: WorkItem
    future: asyncio.Future[WorkResult]
    entry: str | None = None
    spooled: str | None = None
    times_sent: int = 0
    checked: float = 0.0
    missing: bool = False


class Requests:
    """Work goes out, outcomes come back. `start` needs a running event loop; the other methods work after it.

    Args:
        name: of this process, for its replies and its promises. on_drop: works taken back before they were done.
    """

    def __init__(
        self,
        url: str,
        spool: Spool,
        name: str,
        *,
        max_rows: int,
        max_bytes: int,
        lease_seconds: float,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._spool = spool
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._lease_seconds = lease_seconds
        self._on_drop = on_drop
        self._client: Any = connect_async(url)
        self._blocking: Any = connect_async(url)
        self._scripts = {
            name: self._client.register_script(text)
            for name, text in (("admit", scripts.ADMIT), ("submit", scripts.SUBMIT), ("drop", scripts.DROP))
        }
        self.view = View(self._client, name, lease_seconds)
        self._kept: dict[str, int] = {}
        self._sent: dict[str, _Sent] = {}
        self._unanswered: dict[str, _Sent] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._closed = False

    # --- life

    async def start(self, keys: Keys) -> None:
        """Check the server and begin to listen. Raises QueueError, RedisError."""
        self._keys = keys
        await prepare(self._client, keys)
        self._listener = Listener(self._blocking, self._spool, keys.replies + self.name, self._on_reply)
        self.view.keys = keys
        await self.view.refresh(0)
        self._loops = [
            asyncio.create_task(self._listener.run(), name="redis-replies"),
            asyncio.create_task(self._watch(), name="redis-status"),
        ]

    def close(self) -> None:
        self._closed = True

    async def stop(self) -> None:
        await end([*self._loops, *self._background])
        if self._loops:
            await self._listener.stop()
        for client in (self._client, self._blocking):
            await client.aclose()

    @property
    def idle(self) -> bool:
        return not self._sent and not self._kept and not self._background

    # --- requests

    @property
    def _own(self) -> int:
        return sum(self._kept.values())

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        self._check_open()
        keys, own = self._keys, self._own
        self._kept[request] = num_rows  # before it is asked for: others are asked for meanwhile
        try:
            taken, queued = await self._run(
                "admit",
                [keys["load"], keys["apis"]],
                [keys.beats, self.name, own, num_rows, self._max_rows, self._max_bytes],
            )
            if not taken:
                raise self._queue_full(int(queued))
        except BaseException:
            self._kept.pop(request, None)
            raise

    async def submit(self, work: WorkItem) -> None:
        self._check_open(work.request in self._kept)
        sent = _Sent(work, asyncio.get_running_loop().create_future(), checked=time.monotonic())
        left = self._kept.get(work.request, 0)
        admitted = left >= len(work.rows)
        if admitted:
            self._kept[work.request] = left - len(work.rows)
        self._sent[work.id] = self._unanswered[work.id] = sent
        try:
            await self._send(sent, admitted)
        except BaseException:
            self._forget(sent)
            raise

    async def _send(self, sent: _Sent, admitted: bool) -> None:
        work, keys = sent.work, self._keys
        # Large ones off the loop: others wait meanwhile.
        large = work.rows.num_bytes > INLINE_BYTES
        payload = await asyncio.to_thread(pack_work, work) if large else pack_work(work)
        fields: dict[str, Any] = {
            "version": 1,
            "id": work.id,
            "request": work.request,
            "first": work.first,
            "rows": len(work.rows),
            "bytes": work.rows.num_bytes,
            "to": self.name,
        }
        if len(payload) > INLINE_BYTES:
            sent.spooled = fields["spool"] = await asyncio.to_thread(self._spool.put, payload)
        else:
            fields["payload"] = payload
        sent.times_sent += 1
        arguments = [keys.beats, self.name, self._own, len(work.rows), self._max_rows, self._max_bytes]
        arguments += [work.rows.num_bytes, work.lane, int(admitted), int(60_000 + 1000 * self._lease_seconds)]
        arguments += [part for field in fields.items() for part in field]
        entry, queued = await self._run(
            "submit",
            [keys["load"], keys["apis"], keys.stream(work.lane), keys[f"sent:{work.id}:{sent.times_sent}"]],
            arguments,
            patience=self._lease_seconds if admitted else 0.0,
        )
        if not entry:
            raise self._queue_full(int(queued))
        sent.entry = entry.decode()
        if work.id not in self._sent:  # given up while it was on its way
            self._drop(sent)

    async def _run(self, script: str, keys: list[str], arguments: list[Any], *, patience: float = 0.0) -> Any:
        """A script's answer. Raises what a client is told; with ``patience``, Redis may be away so long."""
        ends = time.monotonic() + patience
        while True:
            try:
                answer = await self._scripts[script](keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                told = as_service_error(error)
                if not isinstance(told, NotReadyError) or time.monotonic() > ends:
                    log.warning("Redis did not take %s: %s", script, error)
                    raise told from error
                await asyncio.sleep(0.1)
            else:
                return answer

    def _check_open(self, admitted: bool = False) -> None:
        if self._closed and not admitted:
            raise DrainingError("The service takes no new work. Send the request to another replica.")

    def _queue_full(self, queued: int) -> QueueFullError:
        seconds = seconds_for(queued, self.view.rows_per_second)
        return QueueFullError(
            f"{queued} cells are waiting, and this request does not fit beside them. Try again in {seconds} s.",
            retry_after=seconds,
        )

    async def reply(self, work_id: str) -> WorkResult:
        sent = self._unanswered.pop(work_id)
        try:
            return await sent.future
        except asyncio.CancelledError:
            self._give_up(sent)
            raise

    async def dismiss(self, request: str) -> None:
        self._kept.pop(request, None)
        for sent in [sent for sent in self._sent.values() if sent.work.request == request]:
            self._give_up(sent)

    def _give_up(self, sent: _Sent) -> None:
        if sent.work.id not in self._sent:
            return
        self._forget(sent)
        sent.future.cancel()
        if sent.entry is not None:
            self._drop(sent)

    def _forget(self, sent: _Sent) -> None:
        self._sent.pop(sent.work.id, None)
        self._unanswered.pop(sent.work.id, None)

    def _drop(self, sent: _Sent) -> None:
        """Take it out of the queue, whether or not a worker has it: what that one makes of it is not settled."""

        async def drop() -> None:
            work, keys = sent.work, self._keys
            arguments = [GROUP, sent.entry, work.lane, len(work.rows), work.rows.num_bytes]
            try:
                if await self._run("drop", [keys["load"], keys.stream(work.lane)], arguments):
                    self._on_drop()
            except ServiceError:
                return  # then it is done for nobody
            if sent.spooled is not None:
                await asyncio.to_thread(self._spool.remove, sent.spooled)

        self._in_background(drop())

    def _in_background(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _on_reply(self, work_id: str, outcome: WorkResult) -> None:
        sent = self._sent.pop(work_id, None)
        if sent is not None and not sent.future.done():
            sent.future.set_result(outcome)

    # --- what goes on elsewhere

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            try:
                await self.view.refresh(self._own)
                await self._find_lost()
            except ServiceError as error:
                log.warning("a work that Redis lost could not be sent again: %s", error)
            except (RedisError, OSError) as error:
                self.view.note_failure(error)
            except Exception:  # nothing may end this loop: nobody would notice that Redis is away
                log.exception("looking at the queue failed")

    async def _find_lost(self) -> None:
        """Send again what Redis has lost: gone from the queue, twice looked for, and no reply."""
        now = time.monotonic()
        for sent in list(self._sent.values()):
            if sent.entry is None or now - sent.checked < self._lease_seconds:
                continue
            sent.checked = now
            there = await self._client.xrange(self._keys.stream(sent.work.lane), sent.entry, sent.entry)
            if there or not sent.missing:
                sent.missing = not there
            elif sent.work.id in self._sent:
                log.warning("Redis has lost work %s: sending it again", sent.work.id)
                sent.missing = False
                await self._send(sent, admitted=True)

    def depth(self) -> Depth:
        return self.view.depth(self._own, self._max_rows, self._max_bytes)
