"""Before any route: API keys, deadlines and request ids; after it: security headers. Plain ASGI."""

from __future__ import annotations

import asyncio
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.auth.keys import ApiKey, KeyRing, current_key
from scpalm.app.errors import DeadlineError, InvalidParameterError, ServiceError
from scpalm.app.http.problems import answer_of_service

# Probes, scrapers and readers of the documentation hold no keys; nothing of a user is there.
OPEN_PATHS = ("/health/", "/metrics", "/docs", "/openapi.json", "/v2/health/")
LONGEST_TIMEOUT_SECONDS = 86_400.0
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"


class GuardMiddleware:
    """``keys`` None: whoever reaches the port may ask."""

    def __init__(self, app: ASGIApp, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
                answer["X-Request-Id"] = request_id
                answer.setdefault("Content-Security-Policy", _NO_PAGE)
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            key = self._key(scope, headers)
            seconds = _timeout(headers)
        except ServiceError as error:
            await answer_of_service(error)(scope, receive, secured)
            return
        token = current_key.set(key)
        try:
            counted = receive if key is None else _counted(receive, key)
            await self._within(seconds, scope, counted, secured)
        finally:
            current_key.reset(token)

    def _key(self, scope: Scope, headers: Headers) -> ApiKey | None:
        if self._keys is None or scope["path"].startswith(OPEN_PATHS):
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip() if kind.lower() == "bearer" else headers.get("x-api-key"))
        key.check(scope["path"])
        scope["state"]["owner"] = key.name
        return key

    async def _within(self, seconds: float | None, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            limit.reschedule(None)  # an answer that has begun is sent to its end
            await send(message)

        try:
            async with asyncio.timeout(seconds) as limit:
                await self._app(scope, receive, note_start)
        except TimeoutError:
            if started or not limit.expired():
                raise
            detail = (
                f"The answer was not ready after {seconds:g} s (X-Request-Timeout). Allow more, or send fewer cells."
            )
            await answer_of_service(DeadlineError(detail, field="X-Request-Timeout"))(scope, receive, send)


def _timeout(headers: Headers) -> float | None:
    text = headers.get("x-request-timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= LONGEST_TIMEOUT_SECONDS:
        raise InvalidParameterError(
            f"'{text[:50]}' is no timeout. Send seconds, above 0 and up to {LONGEST_TIMEOUT_SECONDS:g}.",
            field="X-Request-Timeout",
        )
    return seconds


def _counted(receive: Receive, key: ApiKey) -> Receive:
    async def counting() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            key.bytes.take(len(message.get("body", b"")))
        return message

    return counting
