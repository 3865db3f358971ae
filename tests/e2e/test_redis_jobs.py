"""Jobs of several services that share a Redis: each can continue the jobs of another."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
import pyarrow as pa
import pytest

from scpalm.app.jobs.store import CHUNK_ROWS
from tests.e2e.conftest import Server, starter
from tests.e2e.test_serve import H5AD
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis
ARROW = "application/vnd.apache.arrow.stream"
LEASE_SECONDS = 1.5


@dataclass
class Deployment:
    """A Redis, a worker, and services that the test starts.

    Attributes:
        redis: Redis with an append-only file.
        start: starts a service and waits until it is ready.
        spool: folder that all processes share.
    """

    redis: RedisServer
    start: Callable[[], Server]
    spool: Path

    def job(self, location: str) -> dict[str, str]:
        """The fields of a job in Redis."""
        with self.redis.client() as client:
            fields = client.hgetall(f"scpalm:{{jobs}}:job:{location.rpartition('/')[2]}")
        return {name.decode(): value.decode() for name, value in fields.items()}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("redis-jobs")
    redis = RedisServer(folder / "data").start()
    (folder / "spool").mkdir()
    settings = {
        "redis_url": redis.url,
        "spool_dir": str(folder / "spool"),
        "drain_seconds": "0",
        "lease_seconds": str(LEASE_SECONDS),
        "parser_processes": "1",
    }
    try:
        with starter(folder) as start:
            start(command="worker", **settings).wait_until_ready()
            yield Deployment(redis, lambda: start(**settings).wait_until_ready(), folder / "spool")
    finally:
        redis.stop()


@pytest.fixture(scope="module")
def file(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = anndata.read_h5ad(cells)[:, :2000].copy()
    path = tmp_path_factory.mktemp("cells") / "many.h5ad"
    anndata.concat([one] * 40, index_unique="-").write_h5ad(path)
    return path


def send(server: Server, file: Path, path: str = "/embed", **headers: str) -> httpx.Response:
    with file.open("rb") as content:
        sent = {"Content-Type": H5AD, "Prefer": "respond-async", **headers}
        return httpx.post(f"{server.url}{path}", content=content, headers=sent, timeout=60)


def accepted(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def wait(server: Server, location: str, until: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    ends = time.monotonic() + 120
    while not until(state := httpx.get(f"{server.url}{location}").json()):
        assert time.monotonic() < ends, state
        time.sleep(0.02)
    return state


def test_another_service_continues_the_job_of_a_killed_one(
    deployment: Deployment, server: Server, file: Path, tmp_path: Path
) -> None:
    first = deployment.start()
    location = accepted(send(first, file))
    wait(first, location, lambda state: int(str(state["rows_done"])) >= CHUNK_ROWS)
    first.stop(signal.SIGKILL)
    assert deployment.job(location)["state"] == "running"
    second = deployment.start()
    state = wait(second, location, lambda state: state["state"] not in ("queued", "running"))
    assert (state["state"], state["rows"], state["rows_done"]) == ("succeeded", 6000, 6000)
    assert deployment.job(location)["attempt"] == "2"

    # In every format, the result must equal the response of a single process.
    results, answers = {}, {}
    for media_type in ("application/x-npy", ARROW, "application/json", H5AD):
        headers = {"Accept": media_type}
        results[media_type] = httpx.get(f"{second.url}{location}/result", headers=headers, timeout=120)
        with file.open("rb") as content:
            sent = {"Content-Type": H5AD, **headers}
            answers[media_type] = httpx.post(f"{server.url}/embed", content=content, headers=sent, timeout=120)
        assert results[media_type].status_code == 200, results[media_type].text
    for media_type in ("application/x-npy", "application/json"):
        assert results[media_type].content == answers[media_type].content
    tables = [pa.ipc.open_stream(io.BytesIO(got[ARROW].content)).read_all() for got in (results, answers)]
    assert tables[0].equals(tables[1]) and tables[0].num_rows == 6000
    for name, got in (("job", results), ("once", answers)):
        (tmp_path / f"{name}.h5ad").write_bytes(got[H5AD].content)
    job, once = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("job", "once"))
    np.testing.assert_array_equal(job.obsm["X_scpalm"], once.obsm["X_scpalm"])
    assert second.stop() == 0


def test_any_service_knows_cancels_and_lists_jobs(deployment: Deployment, file: Path) -> None:
    one, other = deployment.start(), deployment.start()
    location = accepted(send(one, file, "/pathways", **{"Idempotency-Key": "k"}))
    assert accepted(send(other, file, "/pathways", **{"Idempotency-Key": "k"})) == location, (
        "the key identifies the job"
    )
    assert accepted(send(other, file, "/pathways")) == location, "the same cells and options are the same job"
    assert location.rpartition("/")[2] in [job["id"] for job in httpx.get(f"{other.url}/jobs").json()["jobs"]]
    # Each service runs its own job at the same time.
    more = accepted(send(other, file, "/pathways?summary=true"))
    wait(one, more, lambda state: state["state"] == "running")
    assert wait(other, location, lambda state: True)["state"] == "running"
    for job in (location, more):
        for server in (one, other):
            assert httpx.delete(f"{server.url}{job}").json()["state"] == "cancelled"
    ends = time.monotonic() + 20
    while sorted((deployment.spool / "scpalm-spool" / "jobs").glob(f"{location.rpartition('/')[2]}/*")):
        assert time.monotonic() < ends, "files of a cancelled job are left"
        time.sleep(0.1)
    again = accepted(send(one, file, "/pathways"))
    assert again != location
    assert httpx.delete(f"{other.url}{again}").status_code == 200
    assert one.stop() == other.stop() == 0


def test_a_job_survives_restarts_of_redis(deployment: Deployment, file: Path) -> None:
    service = deployment.start()
    location = accepted(send(service, file, "/embed?also=pathways"))
    wait(service, location, lambda state: int(str(state["rows_done"])) >= CHUNK_ROWS)
    deployment.redis.kill()
    time.sleep(1.0)
    answer = httpx.get(f"{service.url}{location}")
    assert answer.status_code == 503 and "Redis" in answer.json()["detail"]
    deployment.redis.start()
    state = wait(service, location, lambda state: state.get("state") not in ("queued", "running", None))
    assert (state["state"], state["rows_done"]) == ("succeeded", 6000)
    assert service.stop() == 0
