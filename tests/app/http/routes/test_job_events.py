"""The stream of a job's events: it outlives outages, and says so when the service stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scpalm.app.errors import NotReadyError
from tests.app.fakes import Client, FakeSession
from tests.app.http.routes.test_health import until
from tests.app.http.routes.test_jobs import ASYNC, accepted, body_of, wait


def parsed(text: str) -> list[tuple[str, Any]]:
    """Names and contents of events; comments have the name ""."""
    found = []
    for block in text.strip().split("\n\n"):
        name, _, data = block.partition("\n")
        if name.startswith(":"):
            found.append(("", name[1:].strip()))
        else:
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_stream_goes_on_while_the_ledger_is_away(
    own_client: Client, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, ledger = own_client, own_client.service.jobs.ledger
    session.gate.clear()
    location = accepted(client.post("/embed", json=body_of(5), headers=ASYNC))
    assert session.running.wait(20)
    real_get: Callable[..., Any] = ledger.get
    looks = 0

    async def get(job_id: str, owner: str | None = None) -> Any:
        nonlocal looks
        if owner is None:  # the runner
            return await real_get(job_id, owner)
        looks += 1
        if looks in (3, 4):
            raise NotReadyError("Redis, which holds the queue, cannot be reached.\n\nevent: forged")
        if looks == 5:
            session.gate.set()
        return await real_get(job_id, owner)

    monkeypatch.setattr(ledger, "get", get)
    answer = client.get(f"{location}/events")
    events = parsed(answer.text)
    assert (
        answer.status_code == 200 and ("", "Redis, which holds the queue, cannot be reached. event: forged") in events
    )
    assert events[0][0] == "progress" and events[-1][0] == "end" and events[-1][1]["state"] == "succeeded"


def test_a_stopping_service_ends_streams_and_takes_up_no_more_jobs(own_client: Client, session: FakeSession) -> None:
    client = own_client
    session.gate.clear()
    running = accepted(client.post("/embed", json=body_of(20), headers=ASYNC))
    queued = accepted(client.post("/embed", json=body_of(21), headers=ASYNC))
    assert session.running.wait(20)
    streams = [client.submit(client.http.get(f"{location}/events")) for location in (running, queued)]

    async def drain() -> httpx.Response:
        await asyncio.sleep(0.1)  # let the streams begin
        client.service.drain()
        return await client.http.post("/embed", json=body_of(2), headers=ASYNC)

    refused = client.run(drain())
    assert refused.status_code == 503 and refused.headers["connection"] == "close" and refused.headers["retry-after"]
    session.gate.set()
    for stream in streams:
        events = parsed(stream.result(20).text)
        assert events[-1][0] == "draining" and "stops" in events[-1][1]["detail"]
    for location in (running, queued):  # left to the next start
        until(lambda location=location: client.get(location).json()["state"] == "queued")  # type: ignore[misc]


def test_a_stream_of_an_ended_job_ends(client: Client) -> None:
    location = accepted(client.post("/embed", json=body_of(7, seed=9), headers=ASYNC))
    wait(client, location)
    assert [name for name, _ in parsed(client.get(f"{location}/events").text)] == ["end"]
