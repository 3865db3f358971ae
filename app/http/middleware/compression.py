"""Compress JSON responses if ``Accept-Encoding`` allows it. Other formats hold floats, which compress poorly."""

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
_ZSTD_LEVEL, _GZIP_LEVEL = 1, 1  # latency matters more than size
# Larger chunks are compressed in a thread.
_LARGE_CHUNK_BYTES = 64 << 10


class _Compressor:
    """Compresses one response: `feed` every chunk, the last one with ``last=True``."""

    def __init__(self, encoding: str) -> None:
        if encoding == "zstd":
            zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
            self._compress: Callable[[bytes], bytes] = zstd.compress
            self._flush: Callable[[], bytes] = zstd.flush
        else:
            deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            self._compress, self._flush = deflate.compress, deflate.flush

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        return self._compress(chunk) + (self._flush() if last else b"")


def choose_encoding(accept: str) -> str | None:
    """The preferred encoding in ``Accept-Encoding``: ``zstd`` (also on a tie), ``gzip``, or None for neither."""
    quality = qualities(accept)
    best = max(("zstd", "gzip"), key=lambda name: quality.get(name, 0.0))
    return best if quality.get(best, 0.0) > max(0.0, quality.get("identity", 0.0) - 1e-9) else None


class CompressionMiddleware:
    """Plain ASGI middleware, so that streams are compressed chunk by chunk."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = choose_encoding(Headers(scope=scope).get("accept-encoding", "")) if scope["type"] == "http" else None
        if encoding is None:
            await self._app(scope, receive, send)
            return
        compressor: _Compressor | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal compressor
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                size = headers.get("content-length", "")
                small = size.isdigit() and int(size) < SMALLEST_BYTES
                if headers.get("content-type", "").partition(";")[0] in _TYPES:
                    headers.add_vary_header("Accept-Encoding")
                    if not small and "content-encoding" not in headers:
                        compressor = _Compressor(encoding)
                        headers["Content-Encoding"] = encoding
                        del headers["content-length"]
            elif message["type"] == "http.response.body" and compressor is not None:
                body, last = message.get("body", b""), not message.get("more_body", False)
                feed = compressor.feed
                large = len(body) > _LARGE_CHUNK_BYTES
                compressed = await asyncio.to_thread(feed, body, last=last) if large else feed(body, last=last)
                message = {**message, "body": compressed}
            await send(message)

        await self._app(scope, receive, send_compressed)
