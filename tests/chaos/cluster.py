"""Services, workers and their Redis as real processes, and clients that record every failed request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from scipy import sparse

from scpalm.model.bundle import Bundle
from tests.e2e.conftest import BUNDLE, Server
from tests.redis_server import RedisServer

# Long enough for a loaded machine, short enough for a test.
LEASE_SECONDS = 2.0
NO_REDIS = "none"
Json = dict[str, object]


def cells(number: int, seed: int = 0, *, poison: bool = False) -> Json:
    """A body of seeded counts for the genes of the packaged model. With ``poison``, the last cell kills workers."""
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:500]
    counts = np.random.default_rng(seed).poisson(0.4, (number, len(genes)))
    if poison:
        counts[-1] = 0
        counts[-1, 0] = 5
    table = sparse.csr_matrix(counts)
    return {
        "genes": list(genes),
        "indptr": table.indptr.tolist(),
        "indices": table.indices.tolist(),
        "data": table.data.tolist(),
    }


class Process(Server):
    """`scpalm serve` or `scpalm worker` with the session of `tests.chaos.entry`."""

    def __init__(self, log: Path, command: str, settings: dict[str, str], environment: dict[str, str]) -> None:
        scpalm = {f"SCPALM_{name.upper()}": value for name, value in ({"bundle": str(BUNDLE)} | settings).items()}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SCPALM_")}
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.entry", command, "--port", "0"],
                stderr=stderr,
                env=kept | scpalm | environment,
                cwd=Path(__file__).parents[2],
            )
        self.url = ""

    def metric(self, name: str) -> float:
        """The value of a metric, summed over all labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        return sum(s.value for family in families for s in family.samples if s.name == f"scpalm_{name}")


@dataclass
class Load:
    """Clients that each send one request after another until the context ends.

    A client switches to the next service if one refuses the connection or answers 503.

    Attributes:
        answers: status, seconds and text of each response; status 0 for a broken connection.
    """

    urls: list[str]
    size: int = 8
    clients: int = 4
    answers: list[tuple[int, float, str]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _rounds: list[int] = field(default_factory=list)

    def __enter__(self) -> Load:
        body = cells(self.size)
        for number in range(self.clients):
            self._rounds.append(0)
            self._threads.append(threading.Thread(target=self._ask, args=(number, body)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def move(self, *urls: str) -> None:
        """Send all requests to these services from now on. Returns when no request to another one is in flight."""
        self.urls[:] = urls
        before = list(self._rounds)
        wait_until(lambda: all(now > then for now, then in zip(self._rounds, before, strict=True)), 60)

    def _ask(self, number: int, body: Json) -> None:
        at = 0
        with httpx.Client(timeout=60) as client:
            while not self._over.is_set():
                self._rounds[number] += 1
                started = time.monotonic()
                try:
                    answer = client.post(f"{self.urls[at % len(self.urls)]}/embed", json=body)
                    status, text = answer.status_code, answer.text if answer.status_code != 200 else ""
                except httpx.ConnectError:
                    at += 1
                    continue
                except httpx.HTTPError as error:
                    status, text = 0, repr(error)
                self.answers.append((status, time.monotonic() - started, text))
                if status == 503:
                    at += 1
                    time.sleep(0.1)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _, _ in self.answers)

    def lost(self, *allowed: int) -> int:
        """Number of requests without a result, except those refused with an allowed status."""
        return sum(count for status, count in self.statuses.items() if status not in (200, *allowed))


@dataclass
class Cluster:
    """The processes of one case.

    Attributes:
        redis: Redis with an append-only file.
        folder: folder for the files of the case; the processes share ``spool`` in it.
        settings: more settings of processes that start from now on.
    """

    redis: RedisServer
    folder: Path
    processes: list[Process] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self,
        command: str,
        *,
        wait: bool = True,
        redis_url: str = "",
        **environment: str,
    ) -> Process:
        """Start a process. ``environment``: variables of `tests.chaos.entry`, without the prefix CHAOS."""
        chosen = {
            "redis_url": "" if redis_url == NO_REDIS else redis_url or self.redis.url,
            "spool_dir": str(self.spool),
            "lease_seconds": str(LEASE_SECONDS),
            "drain_seconds": "0.2",
            "parser_processes": "1",
            **self.settings,
        }
        chaos = {f"CHAOS_{name.upper()}": value for name, value in environment.items()}
        with self._starting:  # some cases start processes from several threads
            process = Process(self.folder / f"process{len(self.processes)}.log", command, chosen, chaos)
            self.processes.append(process)
        (process.wait_until_ready if wait else process.wait_until_listening)()
        return process

    def services(self, number: int = 1, **environment: str) -> list[Process]:
        """Start services. They become ready once a worker runs."""
        return [self.start("serve", wait=False, **environment) for _ in range(number)]

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def _keys(self, pattern: str) -> list[bytes]:
        with self.redis.client() as client:
            return list(client.scan_iter(f"scpalm:{{mini*}}:{pattern}"))

    def num_leased(self) -> int:
        """Number of items that workers hold."""
        with self.redis.client() as client:
            return sum(client.xpending(key, "workers")["pending"] for key in self._streams())

    def _streams(self) -> list[bytes]:
        return [key for lane in ("online", "bulk") for key in self._keys(lane)]

    def duplicated(self) -> int:
        """Number of results beyond one per item, since the start."""
        with self.redis.client() as client:
            works = sum(client.xinfo_stream(key)["entries-added"] for key in self._streams())
            outcomes = sum(client.xinfo_stream(key)["entries-added"] for key in self._keys("replies:*"))
        return max(0, int(outcomes - works))

    def dead(self) -> int:
        """Number of dead letters."""
        with self.redis.client() as client:
            return sum(client.xlen(key) for key in self._keys("dead"))

    def left(self) -> dict[str, int]:
        """Everything that is still counted, queued or spooled. Empty once all requests are answered."""
        found: dict[str, int] = {}
        with self.redis.client() as client:
            for key in self._keys("load"):
                for name, count in client.hgetall(key).items():
                    found[name.decode()] = int(count)
            found |= {key.decode(): client.xlen(key) for key in self._streams()}
        found["spool"] = sum(path.is_file() for path in (self.spool / "scpalm-spool").iterdir())
        return {name: count for name, count in found.items() if count}

    def assert_nothing_left(self, seconds: float = 10.0) -> None:
        """Wait until `left` is empty."""
        wait_until(lambda: not self.left(), seconds, self.left)


def wait_until(condition: Callable[[], object], seconds: float = 20.0, what: Callable[[], object] = lambda: "") -> None:
    """Wait for a condition. Raises AssertionError after ``seconds``, with what ``what`` returns."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"the condition never became true: {what()}"
        time.sleep(0.01)


def ask(process: Process, body: Json) -> httpx.Response:
    """POST /embed."""
    return httpx.post(f"{process.url}/embed", json=body, timeout=120)


def in_background(process: Process, body: Json) -> tuple[threading.Thread, list[httpx.Response | Exception]]:
    """`ask` in a thread. The list gets the response or the error."""
    answers: list[httpx.Response | Exception] = []

    def go() -> None:
        try:
            answers.append(ask(process, body))
        except httpx.HTTPError as error:
            answers.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    return thread, answers


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster with Redis only; the case starts the rest. Running processes must exit with status 0 on SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spool").mkdir()
    redis = RedisServer(folder / "data").start()
    made = Cluster(redis, folder)
    try:
        yield made
        running = [process for process in made.processes if process.process.poll() is None]
        for process in running:
            process.process.send_signal(signal.SIGTERM)
        assert [process.process.wait(30) for process in running] == [0] * len(running)
    finally:
        for process in made.processes:
            process.process.kill()
            process.process.wait()
        redis.stop()
