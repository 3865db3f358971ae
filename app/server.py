"""One process that serves: its port, its signals and its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from scpalm.app.main import create_app
from scpalm.app.service import Service, State
from scpalm.app.serving.opener import OpenSession, Role, open_default_session
from scpalm.app.settings import Settings
from scpalm.model.errors import UserError

log = logging.getLogger("scpalm.service")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ServeError(UserError):
    """The service could not start. The text says why."""


def exit_quietly(number: int, frame: FrameType | None) -> None:
    """Exit with status 0: a signal that arrives before there is anything to finish."""
    sys.exit(0)


class _Server(uvicorn.Server):
    """Does not handle signals: uvicorn would close the port at once, and exit with the signal instead of 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    settings: Settings,
    open_session: OpenSession = open_default_session,
    *,
    worker: bool = False,
    ports: Sequence[int] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight. Raises ServeError when it cannot start.

    ``worker``: compute for the services at ``settings.redis_url``, and answer only probes and scrapes. ``ports``: the
    first free one is used; default: ``settings.port``.
    """
    with (
        listen(settings.host, ports or [settings.port]) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(settings, listener, create_app(settings, open_session, worker=worker)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, which answers a single request faster; the standard loop where it does not exist, as on Windows."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """Listen on the first of the ports that is not in use. Raises ServeError when there is none."""
    for port in ports[:-1]:
        try:
            return _listen(host, port)
        except ServeError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
            log.info("port %d is in use, trying the next one", port)
    return _listen(host, ports[-1])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only for sockets that name their protocol, which these do not; without
        # it the body of an answer waits 40 ms for the acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ServeError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another with --host or --port."
        ) from error


async def _serve(settings: Settings, listener: socket.socket, app: FastAPI) -> None:
    service: Service = app.state.service
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=settings.stop_seconds,
        )
    )
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            log.warning("second signal: stopping without finishing")
            server.force_exit = True
        stopping.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, service.models.poll_now)
    host, port = listener.getsockname()[:2]
    role = service.role
    note = " (documentation: /docs)" if role is not Role.WORK else " (health and metrics of a worker)"
    log.info("listening on http://%s:%d%s", f"[{host}]" if ":" in host else host, port, note)
    watchers = [
        asyncio.create_task(_stop_on_signal(stopping, service, server, settings.drain_seconds)),
        asyncio.create_task(_stop_on_failure(service, server)),
    ]
    await server.serve(sockets=[listener])
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    if service.state is State.FAILED or service.failure:
        raise ServeError(service.failure)


async def _stop_on_signal(stopping: asyncio.Event, service: Service, server: _Server, pause: float) -> None:
    await stopping.wait()
    service.drain()
    # Load balancers need a moment to notice that /health/ready fails, before connections are refused.
    await asyncio.sleep(pause if service.settled.is_set() else 0.0)
    server.should_exit = True


async def _stop_on_failure(service: Service, server: _Server) -> None:
    await service.settled.wait()
    if service.state is State.FAILED:
        server.should_exit = True
