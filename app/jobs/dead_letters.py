"""Reads the dead letters of the queue in Redis: requests that workers died on. Their callers got an error."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import RedisError

from scpalm.app.storage.redis import as_service_error, connect


@dataclass(frozen=True)
class DeadLetter:
    """One request, or a part of one.

    Attributes:
        id: of the item. model: name, version and checksum, as in the queue's keys. rows: number of cells.
        deliveries: how many workers held it. moment: seconds since the epoch, by Redis' clock.
    """

    id: str
    model: str
    lane: str
    rows: int
    deliveries: int
    moment: float


def dead_letters(url: str, limit: int = 100) -> list[DeadLetter]:
    """The latest dead letters of every model. Raises QueueError, and NotReadyError when Redis is away."""
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
