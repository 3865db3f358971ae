"""The connection to Redis: names of keys, clients, and what its errors mean for a request."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from scpalm.app.errors import NotReadyError, ServiceError, StorageFullError
from scpalm.app.queue.transport import LANES, Lane
from scpalm.model.bundle import Bundle
from scpalm.model.errors import UserError

log = logging.getLogger("scpalm.redis")

GROUP = "workers"
# Every script declares flags, which Redis 7 was the first to know.
OLDEST_REDIS = 7
# A command that takes longer has failed; none is slow, and replies are at most a few MB.
COMMAND_SECONDS = 5.0
# Longest that one command waits at Redis for something to come.
BLOCK_SECONDS = 0.25


class QueueError(UserError):
    """A Redis that cannot be used as the queue; the text says why."""


@dataclass(frozen=True)
class Keys:
    """Names of one model's keys. All have one hash tag, so that a Redis cluster keeps them together.

    Attributes:
        model: name, version and checksum, so that workers of other bundles have other queues.
    """

    model: str

    @classmethod
    def of(cls, bundle: Bundle) -> Keys:
        name, version, checksum = bundle.identity
        return cls(f"{re.sub(r'[^A-Za-z0-9._-]', '_', f'{name}-{version}')}-{checksum[:12]}")

    def __getitem__(self, name: str) -> str:
        return f"scpalm:{{{self.model}}}:{name}"

    def stream(self, lane: Lane) -> str:
        return self[lane]

    @property
    def beats(self) -> str:
        return self["beat:"]

    @property
    def replies(self) -> str:
        return self["replies:"]


def connect(url: str) -> redis.Redis:
    """A client for threads. Raises QueueError for an address that is none."""
    return _from_url(redis.Redis, url, Retry(NoBackoff(), 0))


def connect_async(url: str) -> redis.asyncio.Redis:
    """A client for the event loop. Raises QueueError for an address that is none."""
    # Nothing is tried twice unseen: what must be is tried again where that is known to be safe.
    return _from_url(redis.asyncio.Redis, url, redis.asyncio.retry.Retry(NoBackoff(), 0))


def _from_url(kind: Any, url: str, retry: Any) -> Any:
    try:
        return kind.from_url(
            url,
            protocol=2,
            retry=retry,
            socket_timeout=COMMAND_SECONDS,
            socket_connect_timeout=2.0,
            socket_keepalive=True,
        )
    except ValueError as error:
        raise QueueError(f"SCPALM_REDIS_URL={shown(url)} is no address of Redis: {error}.") from error


def shown(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def as_service_error(error: Exception) -> ServiceError:
    """What a client is told when Redis did not take its work; where Redis is, only the log says."""
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return StorageFullError("Redis, which holds the queue, has no memory left for more work.", retry_after=5)
    if isinstance(error, BusyLoadingError):
        return NotReadyError("Redis, which holds the queue, is loading its data.", retry_after=2)
    if isinstance(error, ResponseError):
        return NotReadyError(f"Redis, which holds the queue, takes no work: {text.partition(' ')[0]}.", retry_after=5)
    return NotReadyError("Redis, which holds the queue, cannot be reached.", retry_after=2)


async def prepare(client: redis.asyncio.Redis, keys: Keys) -> None:
    """Check the server, warn of settings that lose work, and make the streams' groups.

    Raises QueueError for a Redis that is too old, RedisError where it does not answer.
    """
    info = await client.info()
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST_REDIS:
        raise QueueError(f"Redis {version} is too old; this release needs {OLDEST_REDIS}.0 or later.")
    for warning in warnings_of(info):
        log.warning(warning)
    await make_groups(client, keys)


def warnings_of(info: dict[str, Any]) -> list[str]:
    """What of a server's settings would lose accepted work."""
    found = []
    if not int(info.get("aof_enabled", 0)):
        found.append("Redis runs without an append-only file: a restart loses accepted work. Set --appendonly yes.")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        found.append(f"Redis evicts under {policy}: a full one loses accepted work. Set --maxmemory-policy noeviction.")
    return found


async def make_groups(client: redis.asyncio.Redis, keys: Keys) -> None:
    for lane in LANES:
        try:
            await client.xgroup_create(keys.stream(lane), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def is_no_group(error: Exception) -> bool:
    """The streams are gone, with the data of this Redis."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)


__all__ = ["GROUP", "Keys", "QueueError", "RedisError", "connect", "connect_async"]
