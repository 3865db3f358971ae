"""Jobs belong to keys: who sees and removes them, and how many a key may have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scpalm.app.main import create_app
from scpalm.app.queue.transport import WorkItem
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.settings import Settings
from tests.app.auth.test_keys import entry, write
from tests.app.fakes import Client, FakeSession
from tests.app.http.routes.test_jobs import ASYNC, accepted, body_of

JOBS_FOLDER = "scpalm-jobs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tenants")


@pytest.fixture(scope="module")
def tenants(bundle_dir: Path, folder: Path) -> Iterator[Client]:
    path = write(
        folder / "keys.json",
        entry("one", "first"),
        entry("two", "second"),
        entry("operator", "third", admin=True),
        entry("few", "fourth", max_jobs=2),
        entry("small", "fifth", max_result_bytes=1000),
    )
    settings = Settings(bundle=bundle_dir, spool_dir=folder, api_keys_file=path, parser_processes=1)
    with Client(create_app(settings, lambda *_: FakeSession())) as client:
        yield client.wait_until_loaded()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def send(client: Client, key: str, cells: int) -> httpx.Response:
    return client.post("/embed", json=body_of(cells), headers=ASYNC | bearer(key))


def finished(client: Client, key: str, cells: int) -> str:
    """Send a job, and return its location when it has ended."""
    location = accepted(send(client, key, cells))
    assert "event: end" in client.get(f"{location}/events", headers=bearer(key)).text
    return location


def delete(client: Client, location: str, key: str) -> httpx.Response:
    return client.run(client.http.delete(location, headers=bearer(key)))


def test_only_its_key_and_admins_see_a_job(tenants: Client) -> None:
    location = finished(tenants, "first", 10)
    job_id = location.rpartition("/")[2]
    for key, sees in (("first", True), ("second", False), ("third", True)):
        listed = tenants.get("/jobs", headers=bearer(key)).json()["jobs"]
        assert (job_id in [job["id"] for job in listed]) == sees
        for path in (location, f"{location}/result", f"{location}/events", f"{location}/view"):
            assert tenants.get(path, headers=bearer(key)).status_code == (200 if sees else 404), path
    assert delete(tenants, location, "second").status_code == 404
    assert tenants.get(location, headers=bearer("first")).json()["state"] == "succeeded"


@pytest.mark.parametrize("key", ["first", "third"])
def test_a_job_that_ended_is_removed_at_once_with_its_result(tenants: Client, folder: Path, key: str) -> None:
    location = finished(tenants, "first", 11)
    files = folder / JOBS_FOLDER / location.rpartition("/")[2]
    assert files.is_dir()
    removed = delete(tenants, location, key)
    assert removed.status_code == 200 and removed.json()["state"] == "succeeded"
    assert not files.exists()
    for path in (location, f"{location}/result"):
        assert tenants.get(path, headers=bearer("first")).status_code == 404
    assert delete(tenants, location, key).status_code == 404
    again = finished(tenants, "first", 11)
    assert again != location, "the same request is a new job"


def test_a_quota_of_jobs_is_named_and_freed_by_removing_one(tenants: Client) -> None:
    kept = [finished(tenants, "fourth", cells) for cells in (5, 6)]
    refused = send(tenants, "fourth", 7)
    assert refused.status_code == 429 and "max_jobs" in refused.json()["detail"] and refused.headers["retry-after"]
    assert accepted(send(tenants, "fourth", 5)) == kept[0], "a known request is no new job"
    assert send(tenants, "second", 7).status_code == 202, "other keys are not limited"
    assert delete(tenants, kept[0], "fourth").status_code == 200
    assert send(tenants, "fourth", 7).status_code == 202


def test_a_quota_of_bytes_is_named(tenants: Client) -> None:
    location = finished(tenants, "fifth", 40)
    refused = send(tenants, "fifth", 41)
    assert refused.status_code == 429 and "max_result_bytes" in refused.json()["detail"]
    assert delete(tenants, location, "fifth").status_code == 200
    assert send(tenants, "fifth", 41).status_code == 202


def test_cells_of_requests_and_jobs_wait_under_the_name_of_their_key(
    tenants: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[tuple[str, str]] = []
    submit = MemoryTransport.submit

    async def note(transport: MemoryTransport, work: WorkItem) -> None:
        clients.append((work.lane, work.client))
        await submit(transport, work)

    monkeypatch.setattr(MemoryTransport, "submit", note)
    assert tenants.post("/embed", json=body_of(3), headers=bearer("first")).status_code == 200
    finished(tenants, "second", 12)
    # Jobs of other tests may still run.
    assert {("online", "key one"), ("bulk", "key two")} <= set(clients)
