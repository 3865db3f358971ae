"""Names of the queue's keys, and the check of the server before first use."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from scpalm.app.errors import QueueError
from scpalm.app.queue import wire
from scpalm.app.queue.redis.lease_scripts import GROUP
from scpalm.app.queue.transport import LANES, Lane
from scpalm.model.bundle import Bundle

log = logging.getLogger("scpalm.redis")

# The first release that knows the flags in the first line of a script.
OLDEST_REDIS = 7


@dataclass(frozen=True)
class Keys:
    """Names of one model's keys. All have one hash tag, so a Redis cluster keeps them together.

    Attributes:
        model: name, version and checksum of the bundle, and version of the message format. Workers of other bundles
            use other queues, and so do releases that cannot read each other's messages.
    """

    model: str

    @classmethod
    def of(cls, bundle: Bundle) -> Keys:
        name, version, checksum = bundle.identity
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}-{version}")
        return cls(f"{safe}-{checksum[:12]}-format{wire.VERSION}")

    def __getitem__(self, name: str) -> str:
        return f"scpalm:{{{self.model}}}:{name}"

    def stream(self, lane: Lane) -> str:
        """The stream of a lane."""
        return self[lane]

    @property
    def beats(self) -> str:
        """Prefix of the heartbeats."""
        return self["beat:"]

    @property
    def replies(self) -> str:
        """Prefix of the streams of replies, one per service."""
        return self["replies:"]


async def prepare(client: redis.asyncio.Redis, keys: Keys) -> None:
    """Check the server, warn about settings that lose work, and make the streams' groups.

    Raises QueueError when Redis is too old, RedisError when it does not answer.
    """
    info = await client.info()
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST_REDIS:
        raise QueueError(f"Redis {version} is too old; this release needs {OLDEST_REDIS}.0 or later.")
    for warning in warnings_of(info):
        log.warning(warning)
    await make_groups(client, keys)


def warnings_of(info: dict[str, Any]) -> list[str]:
    """Settings of a server that would lose accepted work."""
    found = []
    if not int(info.get("aof_enabled", 0)):
        found.append("Redis runs without an append-only file: a restart loses accepted work. Set --appendonly yes.")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        found.append(f"Redis evicts under {policy}: a full one loses accepted work. Set --maxmemory-policy noeviction.")
    return found


async def make_groups(client: redis.asyncio.Redis, keys: Keys) -> None:
    """Make the streams and their groups where they do not exist. Raises RedisError."""
    for lane in LANES:
        try:
            await client.xgroup_create(keys.stream(lane), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def is_no_group(error: Exception) -> bool:
    """Whether the error says that the streams are gone, because Redis lost its data."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)
