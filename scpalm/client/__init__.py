"""A client of the service: an AnnData in, the same AnnData with results out. `Client` blocks, `AsyncClient` awaits.

Needs a URL and httpx; the model runs on the server.
"""

from __future__ import annotations

from scpalm.client.async_client import AsyncClient
from scpalm.client.client import Client
from scpalm.client.errors import ServiceError

__all__ = ["AsyncClient", "Client", "ServiceError"]
