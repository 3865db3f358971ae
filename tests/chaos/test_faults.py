"""Faults on purpose: every request that was accepted is answered, once, whatever dies."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import numpy as np

from tests.chaos.conftest import LEASE_SECONDS, Cluster, Load, cells


def embed(cluster: Cluster, number: int) -> tuple[int, np.ndarray]:
    answer = httpx.post(f"{cluster.service.url}/embed", json=cells(number), timeout=120)
    return answer.status_code, np.array(answer.json().get("values", []), np.float32)


def test_workers_and_redis_die_and_come_back(cluster: Cluster) -> None:
    first = cluster.start_worker()
    cluster.service.wait_until_ready()
    second = cluster.start_worker().wait_until_ready()
    expected = embed(cluster, 1500)[1]

    # kill -9 in the middle of a large request, on a queue that is idle otherwise.
    got: list[tuple[int, np.ndarray]] = []
    asking = threading.Thread(target=lambda: got.append(embed(cluster, 1500)))
    asking.start()
    time.sleep(0.7)
    first.stop(signal.SIGKILL)
    asking.join()
    assert got[0][0] == 200
    np.testing.assert_array_equal(got[0][1], expected)

    # SIGTERM under load: what it has is finished.
    third = cluster.start_worker().wait_until_ready()
    with Load(cluster.service.url) as load:
        time.sleep(0.5)
        assert second.stop(signal.SIGTERM) == 0
        assert load.last(0.5) == 200
    assert set(load.statuses) == {200}, load.answers

    # Redis is killed and comes back with its append-only file: 503 with the reason meanwhile, nothing accepted is lost.
    with Load(cluster.service.url) as load:
        time.sleep(0.5)
        cluster.redis.kill()
        time.sleep(1.0)
        # What was accepted waits for Redis; what comes now is turned away.
        assert embed(cluster, 1)[0] == 503
        why = cluster.ready()
        assert why.status_code == 503 and "Redis" in why.json()["detail"]
        cluster.redis.start()
        assert load.last(1.5) == 200
    assert set(load.statuses) == {200, 503}, load.answers

    # The only worker stands still for longer than its lease: fenced off what it had, and back at work.
    with Load(cluster.service.url) as load:
        time.sleep(0.5)
        third.process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 1.0)
        why = cluster.ready()
        third.process.send_signal(signal.SIGCONT)
        assert why.status_code == 503 and "No worker" in why.json()["detail"]
        assert load.last(1.5) == 200
    assert set(load.statuses) <= {200, 503}, load.answers
    ends = time.monotonic() + 5
    while cluster.state()[1] and time.monotonic() < ends:
        time.sleep(0.1)

    # Redis is full: refused as a whole, with the reason.
    with cluster.redis.client() as client:
        client.config_set("maxmemory", "1mb")
        answer = httpx.post(f"{cluster.service.url}/embed", json=cells(4), timeout=30)
        assert answer.status_code == 503 and "no memory" in answer.json()["detail"]
        client.config_set("maxmemory", "0")
    assert embed(cluster, 4)[0] == 200
    time.sleep(1.0)
    cluster.assert_nothing_left()
    assert third.stop(signal.SIGTERM) == 0
