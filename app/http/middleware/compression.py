"""``Accept-Encoding``: answers in JSON are compressed where a client asks for it; other formats are packed floats."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

import zstandard
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.app.http.negotiation import qualities

SMALLEST_BYTES = 1024
_TYPES = ("application/json", "application/problem+json")
_ZSTD_LEVEL, _GZIP_LEVEL = 1, 1  # a faster answer is what is wanted, not a small disk
# Such pieces are compressed beside the event loop.
_LONG_PIECE = 64 << 10


class _Packer:
    """One answer's compressor: `feed` each piece, the last one with ``last``."""

    def __init__(self, encoding: str) -> None:
        if encoding == "zstd":
            zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
            self._compress: Callable[[bytes], bytes] = zstd.compress
            self._flush: Callable[[], bytes] = zstd.flush
        else:
            deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            self._compress, self._flush = deflate.compress, deflate.flush

    def feed(self, piece: bytes, *, last: bool) -> bytes:
        return self._compress(piece) + (self._flush() if last else b"")


def choose_encoding(accept: str) -> str | None:
    """``zstd``, ``gzip``, or None for as it is: what ``Accept-Encoding`` likes best, of equals the faster."""
    wishes = qualities(accept)
    best = max(("zstd", "gzip"), key=lambda name: wishes.get(name, 0.0))
    return best if wishes.get(best, 0.0) > max(0.0, wishes.get("identity", 0.0) - 1e-9) else None


class CompressionMiddleware:
    """Plain ASGI; streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = choose_encoding(Headers(scope=scope).get("accept-encoding", "")) if scope["type"] == "http" else None
        if encoding is None:
            await self._app(scope, receive, send)
            return
        packer: _Packer | None = None

        async def packing(message: Message) -> None:
            nonlocal packer
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                size = headers.get("content-length", "")
                small = size.isdigit() and int(size) < SMALLEST_BYTES
                if headers.get("content-type", "").partition(";")[0] in _TYPES:
                    headers.add_vary_header("Accept-Encoding")
                    if not small and "content-encoding" not in headers:
                        packer = _Packer(encoding)
                        headers["Content-Encoding"] = encoding
                        del headers["content-length"]
            elif message["type"] == "http.response.body" and packer is not None:
                body, last = message.get("body", b""), not message.get("more_body", False)
                feed = packer.feed
                large = len(body) > _LONG_PIECE
                packed = await asyncio.to_thread(feed, body, last=last) if large else feed(body, last=last)
                message = {**message, "body": packed}
            await send(message)

        await self._app(scope, receive, packing)
