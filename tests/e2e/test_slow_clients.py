"""Clients that send or read slowly, over real sockets: they lose their connection, and others do not wait for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anndata
import httpx
import pytest

from tests.e2e.conftest import Server

BODY = {"genes": ["CD3D", "LYZ", "NKG7"], "indptr": [0, 2], "indices": [0, 1], "data": [3, 4]}
GREEDY = "127.0.0.2"  # another address of this machine


def connect(server: Server, address: str = GREEDY) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=60, source_address=(address, 0))


def slow_upload(server: Server) -> socket.socket:
    client = connect(server)
    head = (
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{"
    )
    client.sendall(head)
    return client


def answer(server: Server, address: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=60) as client:
        return client.post(f"{server.url}/embed", json=BODY)


def test_slow_uploads_of_one_client_leave_room_for_others(start_server: Callable[..., Server]) -> None:
    server = start_server(
        max_uploads="6", body_idle_seconds="10", body_min_bytes_per_second="100", body_seconds="3600"
    ).wait_until_ready()
    with ExitStack() as opened:
        uploads = [opened.enter_context(slow_upload(server)) for _ in range(6)]
        # All but one hold a slot. The others are refused: each says so on its own connection, or once it is sent.
        server.wait_for(lambda: answer(server, GREEDY).status_code == 429)
        found = answer(server, "127.0.0.1")
        assert found.status_code != 429, found.text
        # Clients that hold a slot without sending lose it.
        for upload in uploads:
            assert upload.recv(12) in (b"HTTP/1.1 408", b"HTTP/1.1 429")
        server.wait_for(lambda: answer(server, GREEDY).status_code != 429)


@pytest.fixture(scope="module")
def large(cells: Path) -> bytes:
    """A file whose imputed copy is larger than what the kernel buffers."""
    path = cells.parent / "large.h5ad"
    anndata.concat([anndata.read_h5ad(cells)] * 8, index_unique="-").write_h5ad(path)
    return path.read_bytes()


def ask(server: Server, head: bytes, body: bytes = b"") -> socket.socket:
    """A client that sends a request and does not read its answer."""
    url = httpx.URL(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((url.host, url.port or 80))
    client.sendall(head + b"Host: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return client


def answers_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*.h5ad") if path.stat().st_size > 0]


def test_a_client_that_does_not_read_leaves_no_file(
    start_server: Callable[..., Server], large: bytes, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    server = start_server(write_seconds="2", spool_dir=str(spool)).wait_until_ready()
    head = b"POST /impute HTTP/1.1\r\nContent-Type: application/x-hdf5\r\nAccept: application/x-hdf5\r\n"
    with ask(server, head, large):
        server.wait_for(lambda: answers_in(spool))
        server.wait_for(lambda: not answers_in(spool))
        assert "took no bytes" in server.log.read_text()
    # A client that reads in pauses gets everything.
    with ask(server, head + b"Connection: close\r\n", large) as client:
        time.sleep(1)
        received = b"".join(iter(lambda: client.recv(1 << 20), b""))
    length = int(received.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(received.partition(b"\r\n\r\n")[2]) == length > 10_000_000


def test_a_client_that_does_not_send_its_headers_is_disconnected(start_server: Callable[..., Server]) -> None:
    server = start_server(header_seconds="0.5").wait_until_ready()
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with httpx.Client() as idle:
        assert idle.get(f"{server.url}/health/live").status_code == 200
        for sent in (b"", b"POST /embed HTT", ask + b"GET /health"):
            with connect(server) as client:
                client.sendall(sent)
                received = b""
                try:
                    while block := client.recv(1 << 12):
                        received += block
                except ConnectionResetError:
                    pass
                assert received.startswith(b"HTTP/1.1 200") == sent.startswith(ask)
        # Longer than the limit later, an idle connection between requests is still there.
        assert idle.get(f"{server.url}/health/live").status_code == 200
