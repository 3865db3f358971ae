"""What a service sees of the queue in Redis and of its workers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scpalm.app.errors import NotReadyError, ServiceError
from scpalm.app.queue.redis import scripts
from scpalm.app.queue.redis.connection import Keys, make_groups
from scpalm.app.queue.redis.lease_scripts import pause_ms
from scpalm.app.queue.throughput import seconds_for
from scpalm.app.queue.transport import LANES, RENEWALS_PER_LEASE, Depth, Lane
from scpalm.app.storage.redis import as_service_error

log = logging.getLogger("scpalm.redis")


@dataclass(frozen=True)
class WorkerStatus:
    """What a live worker reports with its heartbeat.

    Attributes:
        device: cpu or cuda:n. rows_per_second: measured while it had work; 0 before.
    """

    device: str
    rows_per_second: float

    def as_json(self) -> str:
        """The wire form."""
        return json.dumps({"device": self.device, "rows_per_second": round(self.rows_per_second, 3)})

    @classmethod
    def from_json(cls, text: bytes) -> WorkerStatus:
        """Read the wire form, without the members of newer releases. What cannot be read has the defaults."""
        try:
            content = json.loads(text)
            return cls(str(content["device"]), float(content["rows_per_second"]))
        except (ValueError, LookupError, TypeError, RecursionError):
            return cls("", 0.0)


@dataclass(frozen=True)
class Status:
    """The queue at one moment.

    Attributes:
        rows, oldest_seconds: of unsettled items, by lane. num_bytes: of these items.
        reserved: rows that other services have reserved. workers: the live ones, by name.
        services: number of processes that may submit work.
    """

    rows: Mapping[Lane, int]
    oldest_seconds: Mapping[Lane, float]
    num_bytes: int
    reserved: int
    workers: Mapping[str, WorkerStatus]
    services: int

    @property
    def rows_per_second(self) -> float:
        """Of all workers together."""
        return sum(worker.rows_per_second for worker in self.workers.values())


def read_status(answer: Sequence[Any]) -> Status:
    """The answer of `scripts.STATUS`."""
    online, bulk, num_bytes, reserved, oldest_online, oldest_bulk, reports, services = answer
    workers = {
        name.decode(errors="replace"): WorkerStatus.from_json(report)
        for name, report in zip(reports[::2], reports[1::2], strict=True)
    }
    ages = (oldest_online / 1000, oldest_bulk / 1000)
    rows = dict(zip(LANES, (online, bulk), strict=True))
    return Status(rows, dict(zip(LANES, ages, strict=True)), num_bytes, reserved, workers, services)


class View:
    """The queue as one process last saw it. Each look of a service also reports the rows that it has reserved.

    Attributes:
        keys: set before the first look. status: None before it.
    """

    keys: Keys

    def __init__(self, client: Any, name: str, lease_seconds: float, *, takes_requests: bool = True) -> None:
        self._client, self._name = client, name
        self._beat_ms = int(1000 * RENEWALS_PER_LEASE * lease_seconds)
        self._pause_ms = pause_ms(lease_seconds)
        self._script = client.register_script(scripts.STATUS)
        self._lease_seconds, self._takes_requests = lease_seconds, takes_requests
        self._heard_at = float("-inf")
        self.status: Status | None = None
        self._away: ServiceError | None = None

    async def refresh(self, own_rows: int) -> None:
        """Look at the queue; a service also reports that it lives and has reserved ``own_rows``. Raises RedisError."""
        keys = self.keys
        answer = await self._script(
            keys=[keys["load"], keys["apis"], keys["workers"], *map(keys.stream, LANES), keys["pulse"]],
            args=[keys.beats, self._name, own_rows, self._beat_ms, self._pause_ms, int(self._takes_requests)],
        )
        if self._away is not None:
            # It may have come back without its data.
            await make_groups(self._client, keys)
            log.info("Redis is reachable again")
        self.status, self._away = read_status(answer), None

    def note_reply(self) -> None:
        """A worker has just answered, so it lives, although the last look may be older than the worker."""
        self._heard_at = time.monotonic()

    def note_failure(self, error: Exception) -> None:
        """Redis did not answer as it should."""
        if self._away is None:
            log.error("Redis is unreachable: %s", error)
        self._away = as_service_error(error)

    @property
    def rows_per_second(self) -> float:
        """Of all workers together; 0 before the first look."""
        return self.status.rows_per_second if self.status is not None else 0.0

    def depth(self, own_rows: int, max_rows: int, max_bytes: int) -> Depth:
        """See `scpalm.app.queue.transport.Transport.depth`."""
        status = self.status
        if status is None:
            return Depth(dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0.0), full=False, retry_after=1, workers=0)
        queued = sum(status.rows.values()) + status.reserved + own_rows
        full = queued >= max_rows or status.num_bytes >= max_bytes
        retry_after = seconds_for(queued, self.rows_per_second)
        return Depth(dict(status.rows), dict(status.oldest_seconds), full, retry_after, len(status.workers))

    @property
    def in_use(self) -> bool:
        """Whether another process may submit work, or work waits. True while Redis is away."""
        status = self.status
        if status is None or self._away is not None:
            return True
        return status.services > self._takes_requests or sum(status.rows.values()) > 0

    def fault(self) -> ServiceError | None:
        """Why no work should be accepted now."""
        if self._away is not None:
            return self._away
        was_heard = time.monotonic() - self._heard_at < self._lease_seconds
        if self.status is not None and not self.status.workers and not was_heard:
            return NotReadyError(
                f"No worker of the model {self.keys.model} is running. Start one with `scpalm worker`.", retry_after=5
            )
        return None
