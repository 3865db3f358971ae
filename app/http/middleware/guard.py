"""Check API keys, budgets and deadlines before every route; add request ids and security headers."""

from __future__ import annotations

import asyncio
import logging
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.auth.budgets import Budgets
from scpalm.app.auth.keys import ApiKey, KeyRing
from scpalm.app.errors import DeadlineError, InvalidParameterError, ServiceError
from scpalm.app.http.problems import answer_of_service

log = logging.getLogger("scpalm.request")

# Health checks and documentation need no key; they expose no user data. Metrics tell how much the service is used.
OPEN_PATHS = ("/health/", "/docs", "/openapi.json", "/v2/health/", "/page/")
# A key that has used its budget can still see its jobs, fetch their results and cancel them.
_READING = ("GET", "HEAD", "DELETE")
_PAGE = "/"  # it asks for a key where one is needed
LONGEST_TIMEOUT_SECONDS = 86_400.0
# Charge received bytes in steps of this size, to avoid a round trip to the budgets for every chunk.
CHARGE_BYTES = 8 << 20
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DENY_ALL = "default-src 'none'; frame-ancestors 'none'"


class GuardMiddleware:
    """Plain ASGI middleware that sets ``request_id``, ``api_key`` (or None) and ``owner`` in the request state.

    Args:
        app: the application to protect.
        keys: the accepted API keys; None disables authentication.
        budgets: budgets of the keys. Bytes are charged here; routes charge cells when they accept work.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing | None, budgets: Budgets) -> None:
        self._app = app
        self._keys = keys
        self._budgets = budgets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"], state["api_key"] = request_id, None

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
                answer["X-Request-Id"] = request_id
                answer.setdefault("Content-Security-Policy", _DENY_ALL)
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if self._keys is not None:
                await self._keys.refresh()
            key = self._key(scope, headers)
            if scope["method"] not in _READING:
                await self._budgets.check(key)
            seconds = _timeout(headers)
        except ServiceError as error:
            await answer_of_service(error)(scope, receive, send_secured)
            return
        if key is None:
            await self._within(seconds, scope, receive, send_secured)
            return
        state["owner"] = key.name
        body = _MeteredBody(receive, self._budgets, key)
        try:
            await self._within(seconds, scope, body.receive, send_secured)
        finally:
            await body.charge_rest()

    def _key(self, scope: Scope, headers: Headers) -> ApiKey | None:
        """The API key of the request; None if none is required. Raises MissingKeyError, ForbiddenError."""
        if self._keys is None or scope["path"] == _PAGE or scope["path"].startswith(OPEN_PATHS):
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip() if kind.lower() == "bearer" else headers.get("x-api-key"))
        scope["state"]["api_key"] = key  # also for the log of a request that is refused
        key.check_path(scope["path"])
        return key

    async def _within(self, seconds: float | None, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            limit.reschedule(None)  # the deadline does not cut off a response that has started
            await send(message)

        try:
            async with asyncio.timeout(seconds) as limit:
                await self._app(scope, receive, note_start)
        except TimeoutError:
            if started or not limit.expired():
                raise
            detail = (
                f"The response was not ready after {seconds:g} s (X-Request-Timeout). "
                "Allow more time, or send fewer cells."
            )
            await answer_of_service(DeadlineError(detail, field="X-Request-Timeout"))(scope, receive, send)


class _MeteredBody:
    """Counts the bytes of a request body as they arrive and charges them to the API key."""

    def __init__(self, receive: Receive, budgets: Budgets, key: ApiKey) -> None:
        self._receive, self._budgets, self._key = receive, budgets, key
        self._uncharged = 0

    async def receive(self) -> Message:
        """Receive the next ASGI message. Raises NotReadyError if the budgets cannot be reached."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._uncharged += len(message.get("body", b""))
            if self._uncharged >= CHARGE_BYTES or not message.get("more_body", False):
                await self._charge()
        return message

    async def charge_rest(self) -> None:
        """Charge bytes that arrived but were not charged yet, because the body was not read to its end."""
        try:
            await self._charge()
        except ServiceError as error:
            log.warning("%d received bytes of '%s' were not charged: %s", self._uncharged, self._key.name, error)

    async def _charge(self) -> None:
        if self._uncharged:
            await self._budgets.charge_bytes(self._key, self._uncharged)
            self._uncharged = 0


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
            f"'{text[:50]}' is not a valid timeout. Use seconds, above 0 and up to {LONGEST_TIMEOUT_SECONDS:g}.",
            field="X-Request-Timeout",
        )
    return seconds
