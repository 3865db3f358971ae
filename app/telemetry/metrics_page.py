"""The text that Prometheus scrapes, made outside the event loop and not for every scrape."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
# Scrapes within this time get the same text.
KEEP_SECONDS = 1.0


class MetricsPage:
    """Renders a registry. Used from one event loop.

    Args:
        registry: the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = asyncio.Lock()
        self._made_at = float("-inf")
        self._text = b""

    async def text(self) -> bytes:
        """The metrics in Prometheus text format, at most KEEP_SECONDS old."""
        async with self._lock:  # those who come while it is rendered wait for the same text
            if time.monotonic() - self._made_at >= KEEP_SECONDS:
                self._text = await asyncio.to_thread(generate_latest, self._registry)
                self._made_at = time.monotonic()
            return self._text
