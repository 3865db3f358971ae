"""Slots for uploads: a limit in all, and a share for each client."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from scpalm.app.errors import QueueFullError


class UploadSlots:
    """Bounds how many bodies are received and parsed at once.

    Args:
        total: slots of all clients.
        share: slots that one client can hold. Others then get the rest, however slowly that client sends.
    """

    def __init__(self, total: int, share: int) -> None:
        self._total, self._share = total, share
        self._held: Counter[str] = Counter()

    @property
    def num_held(self) -> int:
        """Slots that are held now."""
        return self._held.total()

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Hold a slot. ``client``: see `client_of`. Raises QueueFullError."""
        if self.num_held >= self._total:
            raise QueueFullError(
                f"{self._total} uploads are already being read (SCPALM_MAX_UPLOADS). Try again in a second.",
                retry_after=1,
            )
        if self._held[client] >= self._share:
            raise QueueFullError(
                f"{self._share} of your uploads are already being read (SCPALM_MAX_UPLOADS_PER_CLIENT). Send the next "
                "one when one of them has arrived.",
                retry_after=1,
            )
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]


def client_of(key: str | None, address: str) -> str:
    """What a share is counted by: the name of the API key, or the address. A client with IPv6 owns a whole /64."""
    if key is not None:
        return f"key {key}"
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((int(parsed), 64), strict=False))
