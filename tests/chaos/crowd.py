"""`python -m tests.chaos.crowd [--scale 1.0]`: many slow clients, while normal requests are timed.

Each crowd comes from another address than the normal requests and stays while these run. Prints the latency of one-cell
requests without and with each crowd. Scale 1 has 500 clients that send slowly and 1,000 that are idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.cluster import Process, cells

CROWD_ADDRESS = "127.0.0.2"
_CLIENTS = 4
_DRIP_SECONDS = 1.0
_HANG_UP_SECONDS = 5.0
_BODY = json.dumps(cells(1)).encode()
_LARGE = json.dumps(cells(400)).encode()

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _head(body: bytes, accept: str = "application/json") -> bytes:
    lines = ["POST /embed HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Accept: {accept}"]
    return "\r\n".join([*lines, "Accept-Encoding: identity", f"Content-Length: {len(body)}", "", ""]).encode()


@dataclass(frozen=True)
class Timing:
    """Latencies of normal requests in seconds, and their statuses."""

    seconds: list[float]
    statuses: set[int]

    @property
    def median(self) -> float:
        """Half of the requests took no longer."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """99 of 100 requests took no longer."""
        return sorted(self.seconds)[int(0.99 * (len(self.seconds) - 1))]


@dataclass
class Crowd:
    """The slow clients of one kind.

    Attributes:
        url: the service.
        size: how many there are.
    """

    url: httpx.URL
    size: int
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _ready: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def connect(self) -> Connection:
        """A connection from the address of the crowd."""
        return await asyncio.open_connection(self.url.host, self.url.port, local_addr=(CROWD_ADDRESS, 0), limit=1 << 12)

    @asynccontextmanager
    async def of(self, kind: Kind) -> AsyncIterator[None]:
        """Start this crowd; ready when all clients have connected."""
        self._tasks = [asyncio.create_task(self._run(kind, number)) for number in range(self.size)]
        try:
            for _ in range(self.size):
                await asyncio.wait_for(self._ready.acquire(), 60)
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, kind: Kind, number: int) -> None:
        first = True
        while True:  # a client that the service disconnects comes back
            try:
                reader, writer = await self.connect()
            except OSError:
                await asyncio.sleep(_DRIP_SECONDS)
                continue
            if first:
                first = False
                self._ready.release()
            try:
                await kind(reader, writer, number)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
            finally:
                writer.close()


Kind = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Coroutine[object, object, None]]


async def _drip(writer: asyncio.StreamWriter, content: bytes) -> None:
    for position in range(len(content)):
        writer.write(content[position : position + 1])
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


async def slow_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Slow-loris: headers at one byte a second"""
    await _drip(writer, _head(_BODY))


async def slow_bodies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Slow-loris: bodies at one byte a second"""
    writer.write(_head(_BODY))
    await _drip(writer, _BODY)


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Idle keep-alive connections"""
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while await reader.read(1 << 12):
        pass


async def slow_readers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Readers at 1 kB/s"""
    writer.write(_head(_LARGE) + _LARGE)
    while await reader.read(1 << 10):
        await asyncio.sleep(_DRIP_SECONDS)


async def hang_ups(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Disconnects, ten a second: connected, in headers, in the body, after it, in the answer"""
    head = _head(_LARGE)
    sent = (b"", head[: len(head) // 2], head + _LARGE[:1000], head + _LARGE, head + _LARGE)[number % 5]
    if sent:
        writer.write(sent)
        await writer.drain()
    if number % 5 == 4:
        await reader.read(100)
    writer.transport.abort()
    await asyncio.sleep(_HANG_UP_SECONDS)


# Each kind of crowd, and its size at scale 1.
CROWDS: dict[Kind, int] = {slow_headers: 500, slow_bodies: 500, idle: 1000, slow_readers: 50, hang_ups: 50}


async def timed(url: str, requests: int) -> Timing:
    """Send normal requests one after another, from a few clients."""
    seconds: list[float] = []
    statuses: set[int] = set()

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            for _ in range(requests // _CLIENTS):
                started = time.perf_counter()
                answer = await http.post(f"{url}/embed", content=_BODY, headers={"content-type": "application/json"})
                seconds.append(time.perf_counter() - started)
                statuses.add(answer.status_code)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return Timing(seconds, statuses)


async def with_crowd(url: str, kind: Kind, size: int, requests: int) -> tuple[Timing, Timing]:
    """Timings just before a crowd and with it."""
    quiet = await timed(url, requests)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Crowd(httpx.URL(url), size).of(kind))
        return quiet, await timed(url, requests)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """A service with a device that only sleeps."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = Process(folder / "log", "serve", {"spool_dir": str(folder)}, {"CHAOS_SLEEP": "0.002"})
    try:
        await asyncio.to_thread(service.wait_until_ready)
        yield service.url
    finally:
        service.process.kill()
        service.process.wait()


async def _table(scale: float, requests: int) -> None:
    print("| crowd | clients | p50 quiet | p50 | p99 quiet | p99 | normal requests |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        async with served(Path(name)) as url:
            await timed(url, requests)  # warm up
            for kind, size in CROWDS.items():
                size = max(5, int(size * scale))
                quiet, crowded = await with_crowd(url, kind, size, requests)
                numbers = (quiet.median, crowded.median, quiet.p99, crowded.p99)
                cells_of = " | ".join(f"{1000 * number:.1f} ms" for number in numbers)
                outcome = "all 200" if crowded.statuses == {200} else f"statuses {sorted(crowded.statuses)}"
                print(f"| {kind.__doc__} | {size:,} | {cells_of} | {outcome} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    asyncio.run(_table(options.scale, options.requests))


if __name__ == "__main__":
    main()
