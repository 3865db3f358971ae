"""Which server a URL names, decided without importing that server's client."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

REDIS_SCHEMES = ("redis", "rediss", "unix")


def is_redis(url: str) -> bool:
    """Whether the URL names a Redis server."""
    return urlsplit(url).scheme in REDIS_SCHEMES


def without_password(url: str) -> str:
    """The URL for messages and logs: without user and password."""
    return re.sub(r"//[^/@]*@", "//", url)
