"""The queue in Redis Streams, for many services and workers; the parts are in `scpalm.app.queue.redis`."""

from __future__ import annotations

from scpalm.app.queue.registry import QueueOptions, TransportKind
from scpalm.app.queue.transport import Transport
from scpalm.app.storage.urls import REDIS_SCHEMES


def open_redis(options: QueueOptions) -> Transport:
    """Raises QueueError for a malformed URL, SpoolError for a spool that cannot be used."""
    # The in-process default must not import the client library.
    from scpalm.app.queue.redis.transport import RedisTransport
    from scpalm.app.storage.spool import Spool

    return RedisTransport(options, Spool(options.spool_url))


TRANSPORT = TransportKind(REDIS_SCHEMES, in_process=False, open=open_redis)
