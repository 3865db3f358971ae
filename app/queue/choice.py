"""Which transport a process has: the queue inside it, or the one in Redis. The rest of the code does not know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from scpalm.app.queue.memory import MemoryTransport
from scpalm.app.queue.transport import Transport
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import SessionInfo

if TYPE_CHECKING:
    from scpalm.app.queue.redis.transport import RedisTransport

# The Redis half is imported where it is used: the embedded default needs none of its libraries.

log = logging.getLogger("scpalm.redis")


def open_transport(settings: Settings, metrics: Metrics) -> Transport:
    """The transport that the settings say. Raises QueueError, SpoolError."""
    if settings.redis_url:
        return open_redis(settings, metrics)
    return MemoryTransport(
        max_rows=settings.max_queued_cells,
        max_bytes=settings.max_queued_bytes,
        on_redelivery=metrics.redeliveries.inc,
    )


def open_redis(settings: Settings, metrics: Metrics) -> RedisTransport:
    from scpalm.app.queue.redis.transport import RedisTransport
    from scpalm.app.storage.spool import Spool

    return RedisTransport(
        settings.redis_url,
        Spool(settings.spool_url or str(settings.spool_dir / "scpalm-spool")),
        max_rows=settings.max_queued_cells,
        max_bytes=settings.max_queued_bytes,
        lease_seconds=settings.lease_seconds,
        stall_seconds=settings.stall_seconds,
        on_redelivery=metrics.redeliveries.inc,
        on_dead_letter=lambda: metrics.drop("dead_letter"),
        on_drop=lambda: metrics.drop("client_gone"),
    )


async def connect(transport: Transport, bundle: Bundle, on_wait: Callable[[str], object]) -> None:
    """Connect a transport that needs it, however long that takes; ``on_wait`` is told what it waits for.

    Raises QueueError for a Redis that will never do.
    """
    shared = _shared(transport)
    if shared is None:
        return
    from redis.exceptions import RedisError

    from scpalm.app.storage.redis import as_service_error

    told = False
    while True:
        try:
            await shared.start(bundle)
            return
        except (RedisError, OSError) as error:
            if not told:
                log.warning("waiting for Redis: %s", error)
            told = True
            on_wait(as_service_error(error).detail)
            await asyncio.sleep(0.5)


def start_leases(transport: Transport, info: SessionInfo) -> None:
    """Say that this process works."""
    shared = _shared(transport)
    if shared is not None:
        shared.start_leases(info)


async def disconnect(transport: Transport) -> None:
    """End what `connect` and `start_leases` began."""
    shared = _shared(transport)
    if shared is not None:
        await shared.stop()


def devices_of(transport: Transport) -> str:
    """Devices of the workers behind a transport, as last seen, such as ``cpu`` or ``cuda:0, cuda:1``."""
    shared = _shared(transport)
    status = shared.status if shared is not None else None
    return ", ".join(sorted({worker.device for worker in status.workers.values()})) if status is not None else ""


def info_of(bundle: Bundle) -> SessionInfo:
    """What a session of the bundle would be, told without a runtime. Raises BundleError."""
    from scpalm.model.sessions.base import network_config

    config = network_config(bundle)
    return SessionInfo("onnx", "", config.width, config.num_tokens, config.num_codes, config.num_genes)


def _shared(transport: Transport) -> RedisTransport | None:
    if isinstance(transport, MemoryTransport):
        return None
    from scpalm.app.queue.redis.transport import RedisTransport

    assert isinstance(transport, RedisTransport)
    return transport
