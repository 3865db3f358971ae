from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scpalm.app.cli.commands.worker import worker
from scpalm.app.server import ServeError, listen
from tests.redis_server import free_port


@pytest.fixture
def ports() -> list[int]:
    """Free ports in ascending order."""
    return sorted(free_port() for _ in range(4))


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch, ports: list[int], tmp_path: Path) -> Iterator[list[socket.socket]]:
    """The sockets that workers listen on. They stay open, as with a running worker."""
    sockets: list[socket.socket] = []

    def listen_and_stay(host: str, ports: list[int]) -> socket.socket:
        sockets.append(listen(host, ports))
        return sockets[-1].dup()

    async def serve_nothing(*_: object) -> None:
        return

    monkeypatch.setattr("scpalm.app.server.listen", listen_and_stay)
    monkeypatch.setattr("scpalm.app.server._serve", serve_nothing)
    monkeypatch.setattr("scpalm.app.telemetry.logging.configure_logging", lambda log_format: None)
    monkeypatch.setattr("scpalm.app.cli.commands.worker.DEFAULT_PORTS", ports)
    monkeypatch.setenv("SCPALM_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SCPALM_SPOOL_DIR", str(tmp_path))
    monkeypatch.delenv("SCPALM_PORT", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield sockets
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for listener in sockets:
        listener.close()


def test_a_second_worker_takes_the_next_free_port(listening: list[socket.socket], ports: list[int]) -> None:
    worker()
    worker()
    assert [listener.getsockname()[1] for listener in listening] == ports[:2]


def test_a_requested_port_in_use_is_an_error(
    listening: list[socket.socket], ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(port=ports[0])
    with pytest.raises(ServeError, match=f"{ports[0]}.*in use"):
        worker(port=ports[0])
    monkeypatch.setenv("SCPALM_PORT", str(ports[0]))
    with pytest.raises(ServeError, match=str(ports[0])):
        worker()
    assert len(listening) == 1
