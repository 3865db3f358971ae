"""One function per fault. Each breaks something on purpose and checks that no work is lost or done twice.

``size`` scales the load: 1 in `make test`, more for the table (`python -m tests.chaos.table`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from tests.chaos.cluster import LEASE_SECONDS, Cluster, Load, Process, ask, cells, in_background, wait_until
from tests.chaos.proxy import Proxy


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: what happened.
        seconds: until the response, or until the service was restored.
        lost: number of requests without a result.
        duplicated: number of results beyond one per item.
    """

    what: str
    seconds: float
    lost: int
    duplicated: int


Case = Callable[[Cluster, int], Row]


def _values(answer: httpx.Response | Exception) -> np.ndarray:
    assert isinstance(answer, httpx.Response), repr(answer)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["values"], np.float32)


def _until_served(service: Process) -> float:
    started = time.monotonic()
    wait_until(lambda: ask(service, cells(1)).status_code == 200)
    seconds = time.monotonic() - started
    time.sleep(0.5)
    return seconds


def _turned_away(cluster: Cluster, load: Load, seconds: float, when: str) -> Row:
    assert load.lost(503) == 0, load.statuses
    cluster.assert_nothing_left()
    what = f"{load.statuses[200]} answered, {load.statuses[503]} turned away (503) {when}"
    return Row(what, seconds, load.lost(503), cluster.duplicated())


def worker_killed(cluster: Cluster, size: int) -> Row:
    """kill -9 of the worker that holds the only request: the other worker answers within the lease + 1 s."""
    (service,) = cluster.services()
    hold = cluster.folder / "hold"
    hold.touch()
    first = cluster.start("worker", hold=str(hold))
    body = cells(8 * size)
    asking, answers = in_background(service, body)
    wait_until(lambda: cluster.num_leased() == 1)
    second = cluster.start("worker")
    time.sleep(LEASE_SECONDS)  # long enough to take over a lease, which it must not do
    assert cluster.num_leased() == 1 and not answers
    first.stop(signal.SIGKILL)
    killed = time.monotonic()
    asking.join()
    seconds = time.monotonic() - killed
    assert seconds <= LEASE_SECONDS + 1.0, seconds
    np.testing.assert_array_equal(_values(answers[0]), _values(ask(service, body)))
    assert second.metric("redeliveries_total") == 1
    cluster.assert_nothing_left()
    return Row(f"answered by the other worker (lease {LEASE_SECONDS:g} s)", seconds, 0, cluster.duplicated())


def long_batch(cluster: Cluster, size: int) -> Row:
    """A batch that lasts several leases, with an idle worker: the worker that runs it keeps it."""
    (service,) = cluster.services()
    busy = cluster.start("worker", sleep=str((2 + size) * LEASE_SECONDS))
    asking, answers = in_background(service, cells(8))
    wait_until(lambda: cluster.num_leased() == 1)
    started = time.monotonic()
    idle = cluster.start("worker")
    asking.join()
    _values(answers[0])
    assert idle.metric("rows_total") == 0 and busy.metric("rows_total") == 8
    assert idle.metric("redeliveries_total") == busy.metric("redeliveries_total") == 0
    cluster.assert_nothing_left()
    return Row(f"run once, over {2 + size} leases", time.monotonic() - started, 0, cluster.duplicated())


def service_killed(cluster: Cluster, size: int) -> Row:
    """kill -9 of a service with queued requests: only its own clients notice, and nothing is left over."""
    dying, other = cluster.services(2)
    cluster.start("worker", sleep="0.3")
    wait_until(lambda: httpx.get(f"{other.url}/health/ready").status_code == 200)
    asked = [in_background(dying, cells(200, seed)) for seed in range(4 * size)]
    wait_until(lambda: cluster.num_leased() >= 1)
    with Load([other.url], clients=2) as load:
        dying.stop(signal.SIGKILL)
        killed = time.monotonic()
        for thread, _ in asked:
            thread.join()
        _values(ask(other, cells(8)))
        seconds = time.monotonic() - killed
        time.sleep(0.5)
    assert load.lost() == 0, load.statuses
    # What the dead service had queued is done or dropped; its reservations end with its heartbeat.
    cluster.assert_nothing_left(30)
    what = f"the other service kept answering ({load.statuses[200]} requests); queue and spool empty"
    return Row(what, seconds, 0, cluster.duplicated())


def network_cut(cluster: Cluster, size: int) -> Row:
    """The network between a worker and Redis is cut for longer than the lease: its late result is refused."""
    (service,) = cluster.services()
    proxy, hold = Proxy(cluster.redis.port), cluster.folder / "hold"
    hold.touch()
    cut_off = cluster.start("worker", redis_url=proxy.url, hold=str(hold))
    body = cells(8 * size)
    asking, answers = in_background(service, body)
    wait_until(lambda: cluster.num_leased() == 1)
    proxy.cut()
    hold.unlink()  # it finishes, and its result is on the way
    cut = time.monotonic()
    other = cluster.start("worker")
    asking.join()
    seconds = time.monotonic() - cut
    assert other.metric("rows_total") == 8 * size
    time.sleep(1.0)
    proxy.heal()
    other.stop(signal.SIGTERM)
    # The worker that was cut off is back, and its late result has changed nothing.
    wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200)
    np.testing.assert_array_equal(_values(answers[0]), _values(ask(service, body)))
    assert cut_off.metric("rows_total") >= 8 * size
    cluster.assert_nothing_left()
    duplicated = cluster.duplicated()
    assert cut_off.stop(signal.SIGTERM) == 0
    proxy.close()
    return Row("the other worker answered; the late result was refused; the worker came back", seconds, 0, duplicated)


def terminated(cluster: Cluster, size: int) -> Row:
    """SIGTERM to a worker, then to a service, under load: no request fails."""
    one, other = cluster.services(2)
    first = cluster.start("worker", sleep="0.02")
    cluster.start("worker", sleep="0.02")
    wait_until(lambda: all(httpx.get(f"{s.url}/health/ready").status_code == 200 for s in (one, other)))
    with Load([one.url, other.url], clients=4 * size) as load:
        time.sleep(0.5 * size)
        started = time.monotonic()
        assert first.stop(signal.SIGTERM) == 0
        time.sleep(0.5 * size)
        assert one.stop(signal.SIGTERM) == 0
        seconds = time.monotonic() - started
        time.sleep(0.5 * size)
    # A balancer sends a request to another service when one answers 503 because it drains.
    refused = [text for status, _, text in load.answers if status == 503]
    assert all("accepts no new work" in text for text in refused), refused
    assert load.lost(503) == 0, load.statuses
    cluster.assert_nothing_left()
    return Row(f"{load.statuses[200]} requests, none failed", seconds, load.lost(503), cluster.duplicated())


def poison(cluster: Cluster, size: int) -> Row:
    """A request kills every worker, and workers are restarted: a dead letter after 3, and no other request fails."""
    (service,) = cluster.services()
    workers = [cluster.start("worker"), cluster.start("worker", wait=False)]
    over = threading.Event()

    def restart() -> None:
        while not over.wait(0.05):
            for at, worker in enumerate(workers):
                if worker.process.poll() is not None and not over.is_set():
                    workers[at] = cluster.start("worker", wait=False)

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        with Load([service.url], clients=2 * size) as load:
            time.sleep(0.3)
            started = time.monotonic()
            answer = ask(service, cells(3, poison=True))
            seconds = time.monotonic() - started
            time.sleep(LEASE_SECONDS)
    finally:
        over.set()
        restarting.join()
    assert answer.status_code == 500 and "died" in answer.json()["detail"], answer.text
    assert cluster.dead() == 1
    assert load.lost() == 0, [answer for answer in load.answers if answer[0] != 200]
    cluster.assert_nothing_left(20)
    what = f"error to its caller after 3 deliveries, 1 dead letter; {load.statuses[200]} others answered"
    return Row(what, seconds, load.lost(), cluster.duplicated())


def redis_restarted(cluster: Cluster, size: int) -> Row:
    """kill -9 of Redis, which restarts from its append-only file: 503 meanwhile, and no accepted work is lost."""
    (service,) = cluster.services()
    cluster.start("worker", sleep="0.05")
    wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200)
    with Load([service.url], clients=4 * size) as load:
        time.sleep(0.5)
        cluster.redis.kill()
        time.sleep(1.0 * size)
        answer = ask(service, cells(1))
        assert answer.status_code == 503 and "Redis" in answer.json()["detail"], answer.text
        ready = httpx.get(f"{service.url}/health/ready")
        assert ready.status_code == 503 and "Redis" in ready.json()["detail"]
        cluster.redis.start()
        seconds = _until_served(service)
    return _turned_away(cluster, load, seconds, "while it was down")


def redis_full(cluster: Cluster, size: int) -> Row:
    """Redis is out of memory: requests are refused with the reason, and nothing is partly written."""
    (service,) = cluster.services()
    cluster.start("worker")
    _values(ask(service, cells(4)))
    with cluster.redis.client() as client:
        client.config_set("maxmemory", "1mb")
        for seed in range(size):
            answer = ask(service, cells(4, seed))
            assert answer.status_code == 507 and "no memory" in answer.json()["detail"], answer.text
        assert not cluster.left()
        client.config_set("maxmemory", "0")
    started = time.monotonic()
    _values(ask(service, cells(4)))
    cluster.assert_nothing_left()
    return Row("507 with the reason; nothing written", time.monotonic() - started, 0, cluster.duplicated())


def worker_frozen(cluster: Cluster, size: int) -> Row:
    """The only worker is suspended for longer than its lease: 503 with the reason, then it works again."""
    (service,) = cluster.services()
    worker = cluster.start("worker", sleep="0.02")
    wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200)
    with Load([service.url], clients=2 * size) as load:
        time.sleep(0.3)
        worker.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "No worker" in httpx.get(f"{service.url}/health/ready").text, 4 * LEASE_SECONDS)
        worker.process.send_signal(signal.SIGCONT)
        seconds = _until_served(service)
    return _turned_away(cluster, load, seconds, "without a worker")


def clocks_jump(cluster: Cluster, size: int) -> Row:
    """The clocks of service and workers jump by an hour, forward and back: no effect."""
    clock = cluster.folder / "clock"
    (service,) = cluster.services(clock=str(clock))
    workers = [cluster.start("worker", sleep="0.02", clock=str(clock)) for _ in range(2)]
    wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200)
    with Load([service.url], clients=2 * size) as load:
        for seconds in (3600, -3600, 0):
            _write(clock, str(seconds))
            time.sleep(LEASE_SECONDS * 0.75)
    assert set(load.statuses) == {200}, load.statuses
    assert sum(worker.metric("redeliveries_total") for worker in workers) == 0
    slowest = max(seconds for _, seconds, _ in load.answers)
    cluster.assert_nothing_left()
    return Row(f"{load.statuses[200]} answered, slowest {slowest:.2f} s", slowest, load.lost(), cluster.duplicated())


def _write(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


CASES: tuple[Case, ...] = (
    worker_killed,
    long_batch,
    worker_frozen,
    network_cut,
    poison,
    terminated,
    service_killed,
    redis_restarted,
    redis_full,
    clocks_jump,
)
__all__ = ["CASES", "Case", "Process", "Row"]
