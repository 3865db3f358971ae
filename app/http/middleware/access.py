"""Log each request once and observe its duration, outside all other middleware."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.telemetry.access import Exchange, access_fields, access_note
from scpalm.app.telemetry.logging import ACCESS_LOGGER
from scpalm.app.telemetry.metrics import Metrics

log = logging.getLogger(ACCESS_LOGGER)

# Health checks and metric scrapes are too frequent for the log; they are still counted.
_QUIET = ("/health/", "/metrics")


class AccessMiddleware:
    """Plain ASGI middleware, so that routes still see disconnects through `receive`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        exchange = Exchange()
        access_note(scope)  # now, so that inner copies of the scope share it

        async def receive_counted() -> Message:
            message = await receive()
            exchange.bytes_in += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.server_timing = Headers(raw=message["headers"]).get("server-timing", "")
            exchange.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            self._note(scope, exchange, time.monotonic() - started)

    def _note(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        route = scope.get("route")
        endpoint, num_cells = getattr(route, "path", "other"), access_note(scope).rows
        self._metrics.observe_request(endpoint, exchange.status, seconds, num_cells)
        if scope["method"] == "POST":
            self._metrics.observe_rejection(exchange.status)
        if scope["path"].startswith(_QUIET) and exchange.status < 400:
            return
        fields = access_fields(scope, exchange, seconds)
        log.info(
            "%s %r %d %.1f ms",
            scope["method"],
            scope["path"],
            exchange.status,
            seconds * 1000,
            extra={"fields": fields},
        )
