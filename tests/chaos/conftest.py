"""A service, its workers and their Redis as real processes, and clients that notice every failed request."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy import sparse

from model.bundle import Bundle
from tests.e2e.conftest import BUNDLE, BUNDLE_IS_THERE, Server, starter
from tests.redis_server import SERVER, RedisServer

# Long enough for a loaded machine, short enough for a test.
LEASE_SECONDS = 2.0
Json = dict[str, object]


def cells(number: int, seed: int = 0) -> Json:
    """A body of seeded counts over the embedded model's genes: not real cells."""
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:2000]
    table = sparse.csr_matrix(np.random.default_rng(seed).poisson(0.4, (number, len(genes))))
    return {
        "genes": list(genes),
        "indptr": table.indptr.tolist(),
        "indices": table.indices.tolist(),
        "data": table.data.tolist(),
    }


@dataclass
class Load:
    """Clients that ask one after the other until they are told to stop.

    Attributes:
        answers: status, seconds and text of each; status 0 for a connection that broke.
    """

    url: str
    answers: list[tuple[int, float, str]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        body = cells(8)
        for _ in range(4):
            self._threads.append(threading.Thread(target=self._ask, args=(body,)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, body: Json) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._over.is_set():
                started = time.monotonic()
                try:
                    answer = client.post(f"{self.url}/embed", json=body)
                    status, text = answer.status_code, answer.text if answer.status_code != 200 else ""
                except httpx.HTTPError as error:
                    status, text = 0, repr(error)
                self.answers.append((status, time.monotonic() - started, text))
                if status != 200:
                    time.sleep(0.1)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _, _ in self.answers)

    def last(self, seconds: float = 1.0) -> int:
        """Status of an answer that comes after so long."""
        before, ends = len(self.answers), time.monotonic() + seconds
        while time.monotonic() < ends or len(self.answers) == before:
            time.sleep(0.02)
        return self.answers[-1][0]


@dataclass
class Cluster:
    """What one test has under its hands."""

    redis: RedisServer
    service: Server
    start_worker: Callable[[], Server]
    spool: Path

    def ready(self) -> httpx.Response:
        return httpx.get(f"{self.service.url}/health/ready")

    def state(self) -> tuple[dict[bytes, bytes], int, int]:
        """The queue's load, works in hand or waiting, dead letters."""
        with self.redis.client() as client:
            (load,) = client.keys("scpalm:{*}:load")
            prefix = load.decode().removesuffix("load")
            waiting = sum(client.xlen(f"{prefix}{lane}") for lane in ("online", "bulk"))
            return client.hgetall(load), waiting, client.xlen(f"{prefix}dead")

    def assert_nothing_left(self) -> None:
        load, waiting, dead = self.state()
        assert (waiting, dead) == (0, 0)
        assert {name: number for name, number in load.items() if number != b"0"} == {}
        assert list((self.spool / "scpalm-spool").iterdir()) == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Redis and a service; the test starts its workers."""
    if SERVER is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    if not BUNDLE_IS_THERE:
        pytest.skip(f"{BUNDLE} is absent: export it first")
    redis = RedisServer(tmp_path / "data").start()
    spool = tmp_path / "spool"
    spool.mkdir()
    settings = {
        "redis_url": redis.url,
        "spool_dir": str(spool),
        "lease_seconds": str(LEASE_SECONDS),
        "drain_seconds": "0.2",
        "threads": "1",
        "parser_processes": "1",
    }
    try:
        with starter(tmp_path) as start:
            service = start(**settings).wait_until_listening()
            yield Cluster(redis, service, lambda: start(command="worker", **settings), spool)
            if service.process.poll() is None:
                assert service.stop(signal.SIGTERM) == 0
    finally:
        redis.stop()
