"""The connection of one client: it is ended when the client sends its request, or takes the answer, too slowly."""

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
    """uvicorn's protocol, with limits on the time of request headers and on that in which a client takes no bytes.

    Without the limits, a client that does not send keeps its connection, and one that does not read keeps its response
    in memory or on disk indefinitely.
    """

    write_seconds = 60.0
    header_seconds = 30.0
    _headers_due: asyncio.TimerHandle | None = None
    _timer: asyncio.TimerHandle | None = None
    _left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        connection: Any = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            # For the last bytes of an answer, which the service no longer waits for.
            milliseconds = max(1, int(1000 * self.write_seconds))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._headers_arrived()
        elif self._headers_due is None:  # the beginning of the next request
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._headers_due = asyncio.get_running_loop().call_later(self.header_seconds, self._end_slow_headers)

    def _headers_arrived(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _end_slow_headers(self) -> None:
        log.info("a client did not send the headers of its request within %g s", self.header_seconds)
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._headers_arrived()
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


def limited_protocol(write_seconds: float, header_seconds: float) -> type[asyncio.Protocol]:
    """`LimitedProtocol` with these limits."""
    return type(
        "LimitedProtocol", (LimitedProtocol,), {"write_seconds": write_seconds, "header_seconds": header_seconds}
    )
