"""Finds transports: every module of `scpalm.app.queue.transports`, chosen by the scheme of SCPALM_REDIS_URL.

To add a transport, add one file to that package that declares::

    TRANSPORT = TransportKind(schemes=("nats",), in_process=False, open=open_nats)

where ``open_nats(options: QueueOptions)`` returns a `scpalm.app.queue.transport.Transport`. Every file is imported
to find the schemes, so it must import its client library inside ``open_nats``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from scpalm.app.background import TaskSupervisor
from scpalm.app.errors import QueueError
from scpalm.app.queue import transports
from scpalm.app.queue.transport import LEASE_SECONDS, Transport


def _ignore() -> None:
    """The default of every event."""


@dataclass(frozen=True)
class QueueEvents:
    """Called by a transport when something happens that metrics count.

    Attributes:
        on_redelivery: work was leased again after its worker lost it. on_dead_letter: work was given up.
        on_drop: queued work was withdrawn because its client is gone.
    """

    on_redelivery: Callable[[], object] = _ignore
    on_dead_letter: Callable[[], object] = _ignore
    on_drop: Callable[[], object] = _ignore


@dataclass(frozen=True)
class QueueOptions:
    """What a transport needs to open.

    Attributes:
        max_rows: maximum number of waiting rows.
        max_bytes: maximum size of waiting payloads.
        url: URL of the queue's server; "" for the queue in this process.
        spool_url: where large payloads are stored.
        lease_seconds: a worker that does not renew its leases for this long loses its work.
        stall_seconds: a worker whose device makes no progress for this long gets no renewals.
        takes_requests: whether this process submits work; False for a worker.
        tasks: supervisor of the background tasks.
        events: called when something happens.
    """

    max_rows: int
    max_bytes: int
    url: str = ""
    spool_url: str = ""
    lease_seconds: float = LEASE_SECONDS
    stall_seconds: float = 60.0
    takes_requests: bool = True
    tasks: TaskSupervisor = field(default_factory=TaskSupervisor)
    events: QueueEvents = field(default_factory=QueueEvents)


@dataclass(frozen=True)
class TransportKind:
    """How one transport is chosen and opened.

    Attributes:
        schemes: URL schemes that choose it; "" means an empty URL.
        in_process: whether the device is in the process that takes requests, not in `scpalm worker` processes.
        open: creates the transport without starting it. Raises QueueError, SpoolError.
    """

    schemes: tuple[str, ...]
    in_process: bool
    open: Callable[[QueueOptions], Transport]


def transport_kinds() -> list[TransportKind]:
    """Every transport there is, by the name of its module."""
    names = sorted(module.name for module in pkgutil.iter_modules(transports.__path__))
    return [importlib.import_module(f"{transports.__name__}.{name}").TRANSPORT for name in names]


def known_schemes() -> list[str]:
    """The URL schemes that choose a transport, without the empty one."""
    return sorted(scheme for kind in transport_kinds() for scheme in kind.schemes if scheme)


def transport_kind(url: str) -> TransportKind:
    """The transport for a URL. Raises QueueError when no transport has its scheme."""
    scheme = urlsplit(url).scheme
    for kind in transport_kinds():
        if scheme in kind.schemes and bool(scheme) == bool(url):
            return kind
    raise QueueError(
        f"SCPALM_REDIS_URL has no known scheme. Use one of {', '.join(known_schemes())}, or leave it empty."
    )


def open_transport(options: QueueOptions) -> Transport:
    """Open the transport for ``options.url``; `Transport.start` connects it. Raises QueueError, SpoolError."""
    return transport_kind(options.url).open(options)
