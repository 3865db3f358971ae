"""What a service sees of the queue in Redis and of the workers behind it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scpalm.app.errors import NotReadyError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import Keys, make_groups
from scpalm.app.queue.throughput import seconds_for
from scpalm.app.queue.transport import LANES, Depth, Lane
from scpalm.app.storage.redis import as_service_error

log = logging.getLogger("scpalm.redis")


@dataclass(frozen=True)
class WorkerStatus:
    """What a live worker says of itself.

    Attributes:
        device: cpu or cuda:n. rows_per_second: measured while it had work; 0 before.
    """

    device: str
    rows_per_second: float

    def as_json(self) -> str:
        return json.dumps({"device": self.device, "rows_per_second": round(self.rows_per_second, 3)})


@dataclass(frozen=True)
class Status:
    """The queue at one moment.

    Attributes:
        rows, oldest_seconds: of unsettled work, by lane. num_bytes: of it. kept: rows promised by other processes.
        workers: that live, by name.
    """

    rows: Mapping[Lane, int]
    oldest_seconds: Mapping[Lane, float]
    num_bytes: int
    kept: int
    workers: Mapping[str, WorkerStatus]

    @property
    def rows_per_second(self) -> float:
        """Of all workers together."""
        return sum(worker.rows_per_second for worker in self.workers.values())


def read_status(answer: Sequence[Any]) -> Status:
    """The answer of `redis_scripts.STATUS`."""
    online, bulk, num_bytes, kept, oldest_online, oldest_bulk, said = answer
    workers = {
        name.decode(): WorkerStatus(**json.loads(says)) for name, says in zip(said[::2], said[1::2], strict=True)
    }
    ages = (oldest_online / 1000, oldest_bulk / 1000)
    return Status(
        dict(zip(LANES, (online, bulk), strict=True)), dict(zip(LANES, ages, strict=True)), num_bytes, kept, workers
    )


class View:
    """The queue as one process last saw it; that process' promises are told with every look.

    Attributes:
        keys: set before the first look. status: None before it.
    """

    keys: Keys

    def __init__(self, client: Any, name: str, lease_seconds: float) -> None:
        self._client, self._name = client, name
        self._beat_ms = int(3000 * lease_seconds)
        self._script = client.register_script(scripts.STATUS)
        self.status: Status | None = None
        self._away: ServiceError | None = None

    async def refresh(self, own: int) -> None:
        """Look, and say that this process lives and has promised ``own`` rows. Raises RedisError."""
        keys = self.keys
        answer = await self._script(
            keys=[keys["load"], keys["apis"], keys["workers"], *map(keys.stream, LANES)],
            args=[keys.beats, self._name, own, self._beat_ms],
        )
        if self._away is not None:
            # It may have come back without its data.
            await make_groups(self._client, keys)
            log.info("Redis is back")
        self.status, self._away = read_status(answer), None

    def note_failure(self, error: Exception) -> None:
        """Redis did not answer, or not as it should."""
        if self._away is None:
            log.error("Redis is away: %s", error)
        self._away = as_service_error(error)

    @property
    def rows_per_second(self) -> float:
        return self.status.rows_per_second if self.status is not None else 0.0

    def depth(self, own: int, max_rows: int, max_bytes: int) -> Depth:
        status = self.status
        if status is None:
            return Depth(dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0.0), False, 1, 0)
        queued = sum(status.rows.values()) + status.kept + own
        full = queued >= max_rows or status.num_bytes >= max_bytes
        retry_after = seconds_for(queued, self.rows_per_second)
        return Depth(dict(status.rows), dict(status.oldest_seconds), full, retry_after, len(status.workers))

    def fault(self) -> ServiceError | None:
        """Why no work should be taken now."""
        if self._away is not None:
            return self._away
        if self.status is not None and not self.status.workers:
            return NotReadyError(
                f"No worker of the model {self.keys.model} lives. Start one with `scpalm worker`.", retry_after=5
            )
        return None
