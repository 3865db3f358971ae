"""Refuse names that are not this service's own.

A page of another site can point its own name at 127.0.0.1 (DNS rebinding) and then read what a local service answers.
The browser still sends that name in ``Host``, which is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from scpalm.app.errors import UnknownHostError
from scpalm.app.http.problems import answer_of_service

# Orchestrators check by the address of a container. The answers hold no data of users.
_OPEN_PATHS = ("/health/", "/v2/health/")


class AllowedHostsMiddleware:
    """Plain ASGI middleware. ``allowed``: names, or ``*.name`` for all names below one; None serves every name."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str] | None) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._allowed is None or scope["path"].startswith(_OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        for host in Headers(scope=scope).getlist("host"):  # every browser sends one
            if not is_allowed(host, self._allowed):
                error = UnknownHostError(
                    f"This service does not answer to the host '{host[:100]}'. Use one of {', '.join(self._allowed)}, "
                    "or add the name to SCPALM_ALLOWED_HOSTS.",
                    field="Host",
                )
                await answer_of_service(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a ``Host`` header, with or without a port, names one of ``allowed``."""
    end = host.find("]") + 1  # an IPv6 address contains colons
    name, _, port = host[end:].partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    name = (host[:end] + name).lower().removesuffix(".")
    return any(name == known or (known.startswith("*.") and name.endswith(known[1:])) for known in allowed)
