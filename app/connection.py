"""The connection of one client: it is ended when the client no longer takes what it asked for."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger("scpalm.request")

# On average over the limit. Far below any network, so that only those who hold files and memory are refused.
_MIN_BYTES_PER_SECOND = 1024


class LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen when uvicorn is imported
    """uvicorn's protocol, with a limit on the time in which a client takes no bytes.

    Without the limit, a client that does not read keeps its response in memory or on disk indefinitely.
    """

    write_seconds = 60.0
    _timer: asyncio.TimerHandle | None = None
    _left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        connection: Any = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            # For the last bytes of an answer, which the service no longer waits for.
            milliseconds = max(1, int(1000 * self.write_seconds))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing it would wait for the client
        else:
            super().timeout_keep_alive_handler()

    def _watch(self) -> None:
        self._left = self.transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self.write_seconds, self._check)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        # Nothing is written meanwhile, so what is missing was taken by the client.
        if self._left - self.transport.get_write_buffer_size() >= _MIN_BYTES_PER_SECOND * self.write_seconds:
            self._watch()
            return
        peer: Any = self.transport.get_extra_info("peername")
        log.info("a client took no bytes of its answer for %g s and was disconnected: %s", self.write_seconds, peer)
        self.transport.abort()


def limited_protocol(seconds: float) -> type[asyncio.Protocol]:
    """`LimitedProtocol` with a limit of so many seconds."""
    return type("LimitedProtocol", (LimitedProtocol,), {"write_seconds": seconds})
