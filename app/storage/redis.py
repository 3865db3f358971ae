"""Clients of the Redis server behind SCPALM_REDIS_URL, and what its errors mean for a request.

The queue, the ledger of jobs and the budgets of API keys use the same server.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from scpalm.app.errors import NotReadyError, QueueError, ServiceError, StorageFullError
from scpalm.app.storage.urls import without_password

# No command is slow and replies are a few MB at most, so a command that takes longer has failed.
COMMAND_SECONDS = 5.0
CONNECT_SECONDS = 2.0


def connect(url: str) -> redis.Redis:
    """Make a client for threads. Raises QueueError when the URL is malformed."""
    return _from_url(redis.Redis, url, Retry(NoBackoff(), 0), COMMAND_SECONDS)


def connect_async(url: str, *, command_seconds: float = COMMAND_SECONDS) -> redis.asyncio.Redis:
    """Make a client for the event loop. Raises QueueError when the URL is malformed."""
    # The client must not retry: callers retry where they know that a repeated command is safe.
    return _from_url(redis.asyncio.Redis, url, redis.asyncio.retry.Retry(NoBackoff(), 0), command_seconds)


def _from_url(kind: Any, url: str, retry: Any, command_seconds: float) -> Any:
    try:
        return kind.from_url(
            url,
            protocol=2,
            retry=retry,
            socket_timeout=command_seconds,
            socket_connect_timeout=min(CONNECT_SECONDS, command_seconds),
            socket_keepalive=True,
        )
    except ValueError as error:
        raise QueueError(f"SCPALM_REDIS_URL={without_password(url)} is not a valid Redis URL: {error}.") from error


def as_service_error(error: Exception) -> ServiceError:
    """The error for a client whose request Redis did not accept. The address of Redis appears only in the log."""
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return StorageFullError("Redis, which holds the queue, has no memory left for more work.", retry_after=5)
    if isinstance(error, BusyLoadingError):
        return NotReadyError("Redis, which holds the queue, is loading its data.", retry_after=2)
    if isinstance(error, ResponseError):
        return NotReadyError(
            f"Redis, which holds the queue, refused the command: {text.partition(' ')[0]}.", retry_after=5
        )
    return NotReadyError("Redis, which holds the queue, cannot be reached.", retry_after=2)
