"""The fields of one message in Redis, as any program may have written them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scpalm.app.queue.wire import WireError


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
