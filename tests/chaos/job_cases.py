"""Faults while jobs run in a cluster. See `tests.chaos.cases`."""

from __future__ import annotations

import signal
import threading
import time

import httpx

from tests.chaos.cases import Case, Row
from tests.chaos.cluster import LEASE_SECONDS, Cluster, Process, cells, wait_until


def _job(service: Process, number: int) -> str:
    answer = httpx.post(f"{service.url}/embed", json=cells(number), headers={"Prefer": "respond-async"}, timeout=60)
    assert answer.status_code == 202, answer.text
    return f"{service.url}{answer.headers['location']}"


def _state(location: str) -> str:
    answer = httpx.get(location)
    return str(answer.json()["state"]) if answer.status_code == 200 else f"{answer.status_code}"


def _ready(service: Process) -> bool:
    return httpx.get(f"{service.url}/health/ready").status_code == 200


def redis_paused(cluster: Cluster, size: int) -> Row:
    """Redis is suspended three times for longer than a lease, while a job runs: no process has died."""
    services = cluster.services(2)
    hold = cluster.folder / "hold"
    hold.touch()
    workers = [cluster.start("worker", hold=str(hold)) for _ in range(2)]
    wait_until(lambda: all(map(_ready, services)))
    location = _job(services[0], 30 * size)
    wait_until(lambda: cluster.num_leased() == 1)
    assert cluster.redis.process is not None
    started = time.monotonic()
    for _ in range(3):
        cluster.redis.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * LEASE_SECONDS)
        cluster.redis.process.send_signal(signal.SIGCONT)
        wait_until(lambda: all(map(_ready, services)))
        time.sleep(LEASE_SECONDS)  # long enough to take over what has lapsed
    assert _state(location) == "running", httpx.get(location).text
    hold.unlink()
    wait_until(lambda: _state(location) not in ("queued", "running"))
    assert _state(location) == "succeeded", httpx.get(location).text
    assert httpx.get(f"{location}/result").json()["shape"][0] == 30 * size
    assert sum(worker.metric("redeliveries_total") for worker in workers) == 0
    with cluster.redis.client() as client:
        fields = client.hgetall(f"scpalm:{{jobs}}:job:{location.rpartition('/')[2]}")
    assert (fields[b"attempt"], fields[b"deaths"]) == (b"1", b"0"), fields
    cluster.assert_nothing_left()
    return Row("the job succeeded in its first attempt", time.monotonic() - started, 0, cluster.duplicated())


def events_during_an_outage(cluster: Cluster, size: int) -> Row:
    """Redis is killed and restarted while a client follows a job: its stream goes on to the end."""
    (service,) = cluster.services()
    hold = cluster.folder / "hold"
    hold.touch()
    cluster.start("worker", hold=str(hold))
    wait_until(lambda: _ready(service))
    location = _job(service, 30 * size)
    wait_until(lambda: _state(location) == "running")
    text: list[str] = []

    begun = threading.Event()

    def follow() -> None:
        with httpx.stream("GET", f"{location}/events", timeout=60) as events:
            begun.set()
            text.append(events.read().decode())

    following = threading.Thread(target=follow)
    following.start()
    assert begun.wait(20)
    started = time.monotonic()
    cluster.redis.kill()
    wait_until(lambda: not _ready(service))
    time.sleep(1.0 * size)
    cluster.redis.start()
    hold.unlink()
    following.join(60)
    seconds = time.monotonic() - started
    *_, last = text[0].strip().split("\n\n")
    assert last.startswith("event: end") and '"succeeded"' in last, text
    assert "Redis" in text[0], "a comment says what the stream waits for"
    assert "Traceback" not in service.log.read_text()
    return Row("`end` after the restart; comments meanwhile", seconds, 0, cluster.duplicated())


JOB_CASES: tuple[Case, ...] = (redis_paused, events_during_an_outage)
