"""Read the dead letters of the Redis queue: requests that crashed their workers. Their clients received an error."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import RedisError

from scpalm.app.storage.redis import as_service_error, connect


@dataclass(frozen=True)
class DeadLetter:
    """A request, or a part of one.

    Attributes:
        id: id of the work item.
        model: name, version and checksum of the model, as in the keys of the queue.
        lane: lane of the queue.
        rows: number of cells.
        num_bytes: size of its body in the queue.
        deliveries: how many workers it was delivered to.
        moment: when it became a dead letter, in seconds since the epoch by the clock of Redis.
    """

    id: str
    model: str
    lane: str
    rows: int
    num_bytes: int
    deliveries: int
    moment: float


def dead_letters(url: str, limit: int = 100) -> list[DeadLetter]:
    """The most recent dead letters of all models. Raises QueueError, and NotReadyError if Redis is unreachable."""
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
                            int(fields.get(b"bytes", 0)),
                            int(fields[b"deliveries"]),
                            int(entry.partition(b"-")[0]) / 1000,
                        )
                    )
    except (RedisError, OSError) as error:
        raise as_service_error(error) from error
    return sorted(found, key=lambda letter: letter.moment, reverse=True)[:limit]
