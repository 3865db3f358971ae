"""Run one server process: its port, its signals and its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import uvicorn
from fastapi import FastAPI

from scpalm.app.connection import limited_protocol
from scpalm.app.main import create_app
from scpalm.app.service import Service, State
from scpalm.app.serving.freed_memory import use_few_arenas
from scpalm.app.serving.opener import OpenSession, Role, open_default_session
from scpalm.app.settings import Settings
from scpalm.model.errors import UserError

log = logging.getLogger("scpalm.service")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ServeError(UserError):
    """The service could not start. The message says why."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which close the port at once and exit with the signal instead of 0."""

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
    """Serve until SIGTERM or SIGINT, then finish the requests in flight.

    Args:
        settings: settings of this process.
        open_session: opens the inference session of a model.
        worker: True to compute for the services that share ``settings.redis_url``. A worker serves only health checks
            and metrics.
        ports: ports to try in order. Default: ``settings.port``.

    Raises:
        ServeError: the service cannot start.
    """
    use_few_arenas()
    with (
        listen(settings.host, ports or [settings.port]) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(settings, listener, create_app(settings, open_session, worker=worker)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, which has a lower latency, or None for the standard loop where uvloop is not available (Windows)."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """Listen on the first free port. Raises ServeError if none is free."""
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
        # Accepted connections inherit TCP_NODELAY. asyncio does not set it here, because this socket has no explicit
        # protocol. Without it the response body waits 40 ms for the ACK of the headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ServeError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another address with --host or --port."
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
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=settings.proxies,
            timeout_keep_alive=30,
            http=limited_protocol(settings.write_seconds, settings.header_seconds),
            timeout_graceful_shutdown=settings.stop_seconds,
        )
    )
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    unfinished: list[int] = []

    def on_signal() -> None:
        if not stopping.is_set():
            stopping.set()
            return
        log.warning("second signal: stopping without finishing requests in flight")
        unfinished.append(service.abort())
        server.should_exit = True
        for number in _SIGNALS:
            loop.remove_signal_handler(number)  # a third one ends the process as usual

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, service.models.poll_now)
    host, port = listener.getsockname()[:2]
    role = service.role
    note = " (documentation: /docs)" if role is not Role.WORK else " (health and metrics of a worker)"
    if (
        role is not Role.WORK
        and settings.reaches_network
        and settings.api_keys_file is None
        and not settings.allow_open
    ):
        log.warning(
            "OPEN TO THE NETWORK: %s accepts requests from other machines without API keys. Set SCPALM_API_KEYS_FILE "
            "(`scpalm key NAME` makes an entry), or SCPALM_ALLOW_OPEN=1 if only trusted machines reach this address.",
            host,
        )
    log.info("listening on http://%s:%d%s", f"[{host}]" if ":" in host else host, port, note)
    watchers = [
        asyncio.create_task(_stop_on_signal(stopping, service, server, settings.drain_seconds)),
        asyncio.create_task(_stop_on_failure(service, server)),
    ]
    async with _metrics_server(settings, app):
        await server.serve(sockets=[listener])
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    if unfinished:
        raise ServeError(f"A second signal stopped the service; {unfinished[0]} requests in flight were not finished.")
    if service.state is State.FAILED or service.failure:
        raise ServeError(service.failure)


@contextlib.asynccontextmanager
async def _metrics_server(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    """Serves /metrics alone on SCPALM_METRICS_PORT, if that is set. Raises ServeError."""
    if settings.metrics_port is None:
        yield
        return
    with listen(settings.host, [settings.metrics_port]) as listener:
        config = uvicorn.Config(
            app.state.metrics_app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            http=limited_protocol(settings.write_seconds, settings.header_seconds),
        )
        server = _Server(config)
        host, port = listener.getsockname()[:2]
        log.info("metrics on http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="metrics server")
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)


async def _stop_on_signal(stopping: asyncio.Event, service: Service, server: _Server, pause: float) -> None:
    await stopping.wait()
    service.drain()
    # Give load balancers time to notice that /health/ready fails before connections are refused.
    await asyncio.sleep(pause if service.settled.is_set() else 0.0)
    server.should_exit = True


async def _stop_on_failure(service: Service, server: _Server) -> None:
    await service.settled.wait()
    if service.state is State.FAILED:
        server.should_exit = True
