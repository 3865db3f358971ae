"""Requests that end with the service: they are answered, even when it stops at once."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.errors import DrainingError
from scpalm.app.http.problems import answer_of_service
from scpalm.app.service import Service


class DrainMiddleware:
    """Plain ASGI middleware, inside all others. A request that a stopping service cancels is answered with 503."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._service.requests.add(task)
        try:
            await self._app(scope, receive, note_start)
        except asyncio.CancelledError:
            if not self._service.draining.is_set():
                raise
            task.uncancel()
            if not started:  # otherwise the client sees that the response ends early
                error = DrainingError("The service was stopped before the response was ready. Send the request again.")
                await answer_of_service(error)(scope, receive, send)
        finally:
            self._service.requests.discard(task)
