"""Log each request once and observe its duration, outside all other middleware."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            self._note(scope, status, time.monotonic() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        self._metrics.observe_request(getattr(route, "path", "other"), status, seconds)
        if scope["method"] == "POST":
            self._metrics.observe_rejection(status)
        path = scope["path"]
        if path.startswith(_QUIET) and status < 400:
            return
        client = (scope.get("client") or ("-",))[0]
        method = scope["method"]
        extra = {"method": method, "path": path, "status": status, "seconds": round(seconds, 6), "client": client}
        # %r, because a path may contain line breaks that would forge a log line.
        log.info("%s %r %d %.1f ms", method, path, status, seconds * 1000, extra=extra)
