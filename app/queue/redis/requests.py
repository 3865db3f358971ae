"""The service's side of the queue in Redis: admit, submit, wait for replies. Everything runs on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.background import Beat, cancel_until_done
from scpalm.app.errors import DrainingError, NotReadyError, QueueFullError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import Keys, prepare
from scpalm.app.queue.redis.lease_scripts import GROUP
from scpalm.app.queue.redis.replies import Listener
from scpalm.app.queue.redis.status import View
from scpalm.app.queue.registry import QueueOptions
from scpalm.app.queue.throughput import seconds_for
from scpalm.app.queue.transport import Depth, Lane, WorkItem, WorkResult
from scpalm.app.queue.wire import pack_work
from scpalm.app.storage.redis import as_service_error, connect_async
from scpalm.app.storage.spool import INLINE_BYTES, Spool

log = logging.getLogger("scpalm.redis")

STATUS_SECONDS = 0.5
# How long Redis remembers a submission, so that a repeated one is recognised.
_REMEMBER_SECONDS = 60.0


@dataclass(eq=False)
class _Sent:
    """A submitted item. ``entry`` is its id in the stream, None until Redis has it."""

    work: WorkItem
    future: asyncio.Future[WorkResult]
    entry: str | None = None
    spooled: str | None = None
    times_sent: int = 0
    checked_at: float = 0.0
    missing: bool = False


class Requests:
    """Items go out, results come back. `start` needs a running event loop; the other methods work after it.

    Args:
        name: of this service, for its replies and its reservations.
    """

    def __init__(self, options: QueueOptions, spool: Spool, name: str) -> None:
        self.name = name
        self._spool = spool
        self._options = options
        self._client: Any = connect_async(options.url)
        self._blocking: Any = connect_async(options.url)
        self._scripts = {
            name: self._client.register_script(text)
            for name, text in (("admit", scripts.ADMIT), ("submit", scripts.SUBMIT), ("drop", scripts.DROP))
        }
        self.view = View(self._client, name, options.lease_seconds, takes_requests=options.takes_requests)
        self._reserved: dict[str, int] = {}
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
            self._options.tasks.start("redis-replies", self._listener.run),
            self._options.tasks.start("redis-status", self._watch),
        ]

    def close(self) -> None:
        """Accept no new work."""
        self._closed = True

    async def stop(self) -> None:
        """End the loops and close the connections."""
        await cancel_until_done([*self._loops, *self._background])
        if self._loops:
            await self._listener.stop()
        for client in (self._client, self._blocking):
            await client.aclose()

    @property
    def idle(self) -> bool:
        """No item is outstanding, and none is expected."""
        return not self._sent and not self._reserved and not self._background

    # --- requests

    @property
    def _own_rows(self) -> int:
        return sum(self._reserved.values())

    async def admit(self, request: str, num_rows: int, lane: Lane) -> None:
        """See `scpalm.app.queue.transport.Transport.admit`."""
        self._check_open()
        keys, options, own_rows = self._keys, self._options, self._own_rows
        self._reserved[request] = num_rows  # before Redis answers: other requests ask meanwhile
        try:
            accepted, queued = await self._run(
                "admit",
                [keys["load"], keys["apis"]],
                [keys.beats, self.name, own_rows, num_rows, options.max_rows, options.max_bytes],
            )
            if not accepted:
                raise self._queue_full(int(queued))
        except BaseException:
            self._reserved.pop(request, None)
            raise

    async def submit(self, work: WorkItem) -> None:
        """See `scpalm.app.queue.transport.Transport.submit`."""
        self._check_open(admitted=work.request in self._reserved)
        sent = _Sent(work, asyncio.get_running_loop().create_future(), checked_at=time.monotonic())
        left = self._reserved.get(work.request, 0)
        admitted = left >= len(work.rows)
        if admitted:
            self._reserved[work.request] = left - len(work.rows)
        self._sent[work.id] = self._unanswered[work.id] = sent
        try:
            await self._send(sent, admitted=admitted)
        except BaseException:
            self._forget(sent)
            raise

    async def _send(self, sent: _Sent, *, admitted: bool) -> None:
        work, keys, options = sent.work, self._keys, self._options
        # Pack large items in a thread, so that the event loop stays free.
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
        arguments = [keys.beats, self.name, self._own_rows, len(work.rows), options.max_rows, options.max_bytes]
        arguments += [work.rows.num_bytes, work.lane, int(admitted)]
        arguments += [int(1000 * (_REMEMBER_SECONDS + options.lease_seconds))]
        arguments += [part for field in fields.items() for part in field]
        entry, queued = await self._run(
            "submit",
            [keys["load"], keys["apis"], keys.stream(work.lane), keys[f"sent:{work.id}:{sent.times_sent}"]],
            arguments,
            retry_seconds=options.lease_seconds if admitted else 0.0,
        )
        if not entry:
            raise self._queue_full(int(queued))
        sent.entry = entry.decode()
        if work.id not in self._sent:  # abandoned while it was on its way
            self._in_background(self._withdraw(sent))

    async def _run(self, script: str, keys: list[str], arguments: list[Any], *, retry_seconds: float = 0.0) -> Any:
        """Run a script; retry for ``retry_seconds`` while Redis is unreachable. Raises ServiceError."""
        ends = time.monotonic() + retry_seconds
        while True:
            try:
                answer = await self._scripts[script](keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                service_error = as_service_error(error)
                if not isinstance(service_error, NotReadyError) or time.monotonic() > ends:
                    log.warning("Redis did not accept %s: %s", script, error)
                    raise service_error from error
                await asyncio.sleep(0.1)
            else:
                return answer

    def _check_open(self, *, admitted: bool = False) -> None:
        if self._closed and not admitted:
            raise DrainingError("The service takes no new work. Send the request to another replica.")

    def _queue_full(self, queued: int) -> QueueFullError:
        seconds = seconds_for(queued, self.view.rows_per_second)
        return QueueFullError(
            f"{queued} cells are waiting and this request does not fit in the queue. Try again in {seconds} s.",
            retry_after=seconds,
        )

    async def reply(self, work_id: str) -> WorkResult:
        """See `scpalm.app.queue.transport.Transport.reply`."""
        sent = self._unanswered.pop(work_id)
        try:
            return await sent.future
        except asyncio.CancelledError:
            self._abandon(sent)
            raise

    async def dismiss(self, request: str) -> None:
        """See `scpalm.app.queue.transport.Transport.dismiss`."""
        self._reserved.pop(request, None)
        for sent in [sent for sent in self._sent.values() if sent.work.request == request]:
            self._abandon(sent)

    def _abandon(self, sent: _Sent) -> None:
        if sent.work.id not in self._sent:
            return
        self._forget(sent)
        sent.future.cancel()
        if sent.entry is not None:
            self._in_background(self._withdraw(sent))

    def _forget(self, sent: _Sent) -> None:
        self._sent.pop(sent.work.id, None)
        self._unanswered.pop(sent.work.id, None)

    async def _withdraw(self, sent: _Sent) -> None:
        """Take an item out of the queue. If a worker holds it, the result will be refused."""
        work, keys = sent.work, self._keys
        arguments = [GROUP, sent.entry, work.lane, len(work.rows), work.rows.num_bytes]
        try:
            if await self._run("drop", [keys["load"], keys.stream(work.lane)], arguments):
                self._options.events.on_drop()
        except ServiceError:
            return  # then its computation is wasted
        if sent.spooled is not None:
            await asyncio.to_thread(self._spool.remove, sent.spooled)

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _on_reply(self, work_id: str, result: WorkResult) -> None:
        self.view.note_reply()
        sent = self._sent.pop(work_id, None)
        if sent is not None and not sent.future.done():
            sent.future.set_result(result)

    # --- watching the queue

    async def _watch(self, beat: Beat) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            try:
                await self.view.refresh(self._own_rows)
                await self._resend_lost()
                beat()
            except ServiceError as error:
                log.warning("an item that Redis lost could not be sent again: %s", error)
            except (RedisError, OSError) as error:
                self.view.note_failure(error)

    async def _resend_lost(self) -> None:
        """Send items again that Redis has lost: missing from the queue in two looks, and no reply came."""
        now = time.monotonic()
        for sent in list(self._sent.values()):
            if sent.entry is None or now - sent.checked_at < self._options.lease_seconds:
                continue
            sent.checked_at = now
            found = await self._client.xrange(self._keys.stream(sent.work.lane), sent.entry, sent.entry)
            if found or not sent.missing:
                sent.missing = not found
            elif sent.work.id in self._sent:
                log.warning("Redis has lost work %s: sending it again", sent.work.id)
                sent.missing = False
                await self._send(sent, admitted=True)

    def depth(self) -> Depth:
        """See `scpalm.app.queue.transport.Transport.depth`."""
        return self.view.depth(self._own_rows, self._options.max_rows, self._options.max_bytes)
