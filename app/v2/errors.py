"""Add the member ``error`` to problems under /v2, where clients of the protocol look for the reason."""

from __future__ import annotations

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.http.problems import MEDIA_TYPE

PREFIX = "/v2"


class InferenceErrorMiddleware:
    """Plain ASGI middleware that rewrites every problem below the prefix, including those of other middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(PREFIX + "/")):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def send_rewritten(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    problem = orjson.loads(bytes(body))
                    content = orjson.dumps({"error": problem.get("detail", "unknown"), **problem})
                    MutableHeaders(scope=start)["Content-Length"] = str(len(content))
                    await send(start)
                    await send({"type": "http.response.body", "body": content})

        await self._app(scope, receive, send_rewritten)


def _is_problem(message: Message) -> bool:
    headers = MutableHeaders(scope=message)
    return headers.get("content-type", "").startswith(MEDIA_TYPE) and "content-encoding" not in headers
