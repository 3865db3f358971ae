"""200 concurrent clients, of which four in five disconnect while they send, wait or read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

import anndata
import httpx
import numpy as np
import orjson
import psutil  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from tests.e2e.conftest import Server
from tests.e2e.test_serve import StartServer, as_json, embed_json

CLIENTS, PATIENT_SHARE, CELLS = 200, 0.2, 5
MEMORY_GROWTH = 150 << 20


def request_of(body: bytes, host: str) -> bytes:
    head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


async def client(url: str, body: bytes, random: np.random.Generator) -> bytes | None:
    """The raw response, or None for a client that disconnected."""
    place = urlsplit(url)
    assert place.hostname and place.port
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    message = request_of(body, place.netloc)
    try:
        if random.random() < PATIENT_SHARE:
            writer.write(message)
            return await reader.read()
        moment = random.integers(3)
        if moment == 0:  # while it sends
            writer.write(message[: int(random.integers(1, len(message)))])
            await writer.drain()
            await asyncio.sleep(random.uniform(0, 0.3))
        else:
            writer.write(message)
            await writer.drain()
            if moment == 1:  # while it waits
                await asyncio.sleep(random.uniform(0, 1.0))
            else:  # while it reads
                await reader.read(int(random.integers(1, 400)))
        return None
    finally:
        writer.transport.abort()


async def all_clients(url: str, bodies: list[bytes], seed: int) -> list[bytes | None]:
    children = np.random.default_rng(seed).spawn(len(bodies))
    return list(await asyncio.gather(*(client(url, body, own) for body, own in zip(bodies, children, strict=True))))


def held(process: psutil.Process) -> int:
    family = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in family)


def gauge(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def values_of(answer: bytes) -> NDArray[np.float32]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head[:500]
    assert b"transfer-encoding: chunked" not in head.lower()
    return np.array(orjson.loads(rest)["values"], np.float32)


def test_waiting_clients_are_served_and_disconnected_ones_leave_nothing_behind(
    start_server: StartServer, cells: Path, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    server = start_server(spool_dir=str(tmp_path / "spool"), results_dir=str(tmp_path / "jobs")).wait_until_ready()
    data = anndata.read_h5ad(cells)
    whole = embed_json(server, data)
    starts = [CELLS * (number % (len(data) // CELLS)) for number in range(CLIENTS)]
    bodies = [orjson.dumps(as_json(data[start : start + CELLS].copy())) for start in starts]
    process = psutil.Process(server.process.pid)
    asyncio.run(all_clients(server.url, bodies, seed=0))  # once before, so that buffers have their size
    files, memory = process.num_fds(), held(process)
    answers = asyncio.run(asyncio.wait_for(all_clients(server.url, bodies, seed=1), 120))
    served = [(start, answer) for start, answer in zip(starts, answers, strict=True) if answer is not None]
    assert len(served) > CLIENTS * PATIENT_SHARE / 2
    for start, answer in served:
        np.testing.assert_array_equal(values_of(answer), whole[start : start + CELLS])
    until = time.monotonic() + 20
    while gauge(server, "scpalm_queue_rows") or process.num_fds() > files or list((tmp_path / "spool").rglob("*.*")):
        left = [str(path) for path in (tmp_path / "spool").rglob("*")]
        assert time.monotonic() < until, (gauge(server, "scpalm_queue_rows"), process.num_fds(), files, left)
        time.sleep(0.2)
    assert held(process) < memory + MEMORY_GROWTH
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    np.testing.assert_array_equal(embed_json(server, data[:3].copy()), whole[:3])
    assert "Traceback" not in server.log.read_text()
