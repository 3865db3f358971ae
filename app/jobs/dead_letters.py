"""Requests that workers died with in hand, as the queue in Redis keeps them. Their callers have been told."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import RedisError

from scpalm.app.storage.redis import as_service_error, connect


@dataclass(frozen=True)
class DeadLetter:
    """One request, or one part of it.

    Attributes:
        id: of the work. model: name, version and checksum, as in the queue's keys. rows: its cells.
        deliveries: how many workers had it. moment: seconds since the epoch, by Redis' clock.
    """

    id: str
    model: str
    lane: str
    rows: int
    deliveries: int
    moment: float


def dead_letters(url: str, limit: int = 100) -> list[DeadLetter]:
    """The latest of every model's queue. Raises QueueError, and NotReadyError where Redis is away."""
    found: list[DeadLetter] = []
    try:
        with connect(url) as client:
            for key in client.scan_iter("scpalm:{*}:dead", _type="stream"):
                model = key.decode().partition("{")[2].partition("}")[0]
                for entry, fields in client.xrevrange(key, count=limit):
                    found.append(
                        DeadLetter(
                            fields[b"id"].decode(),
                            model,
                            fields[b"lane"].decode(),
                            int(fields[b"rows"]),
                            int(fields[b"deliveries"]),
                            int(entry.partition(b"-")[0]) / 1000,
                        )
                    )
    except (RedisError, OSError) as error:
        raise as_service_error(error) from error
    return sorted(found, key=lambda letter: letter.moment, reverse=True)[:limit]
