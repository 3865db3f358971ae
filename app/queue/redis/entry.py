"""The fields of one message in Redis, as any program may have written them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scpalm.app.queue.redis.in_flight import InFlightWork
from scpalm.app.queue.redis.lease_scripts import GROUP
from scpalm.app.queue.transport import Lane, Lease
from scpalm.app.queue.wire import WireError

log = logging.getLogger("scpalm.redis")


@dataclass(frozen=True)
class Entry:
    """A message in the stream of a lane.

    Attributes:
        id: id of the item.
        rows: number of its cells, as counted in the queue.
        num_bytes: its size, as counted in the queue.
        reply_to: the service that waits for the result.
        spooled: name of the payload in the spool; None if ``payload`` has it.
        payload: the packed item; empty if it is in the spool.
    """

    id: str
    rows: int
    num_bytes: int
    reply_to: str
    spooled: str | None
    payload: bytes

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Entry:
        """Read the fields. Raises WireError if one is missing or malformed, so that no answer could be sent."""
        try:
            spooled = fields.get(b"spool")
            return cls(
                fields[b"id"].decode(),
                int(fields[b"rows"]),
                int(fields[b"bytes"]),
                fields[b"to"].decode(),
                None if spooled is None else spooled.decode(),
                fields[b"payload"] if spooled is None else b"",
            )
        except (KeyError, ValueError) as error:
            raise WireError(f"It has the fields {sorted(fields)} ({type(error).__name__}: {error}).") from error

    def in_flight(self, lease: Lease | None, entry: bytes, lane: Lane) -> InFlightWork:
        """The item as this worker holds it; without a lease if its payload cannot be read."""
        return InFlightWork(
            self.id,
            lease,
            entry.decode(),
            lane,
            self.rows,
            self.num_bytes,
            self.reply_to,
            self.spooled,
            time.monotonic(),
        )


def discard(client: Any, stream: str, entry: bytes, error: WireError) -> None:
    """Remove a message that has no address. Left in its stream, it would come back to every worker."""
    log.error("message %s in %s is removed: %s", entry.decode(), stream, error)
    client.xack(stream, GROUP, entry)
    client.xdel(stream, entry)
