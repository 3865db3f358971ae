"""Requests are admitted by the memory that others hold."""

from __future__ import annotations

from tests.app.fakes import Client
from tests.app.http.routes.test_jobs import body_of


def test_requests_are_refused_while_others_hold_all_memory(own_client: Client) -> None:
    memory = own_client.service.memory
    with memory.reserve(memory.limit):
        refused = own_client.post("/embed", json=body_of(3))
        assert refused.status_code == 429 and "SCPALM_MAX_MEMORY_BYTES" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
    assert own_client.post("/embed", json=body_of(3)).status_code == 200


def test_the_budget_is_in_the_metrics(own_client: Client) -> None:
    memory = own_client.service.memory
    with memory.reserve(12345):
        lines = own_client.get("/metrics").text.splitlines()
    assert "scpalm_request_memory_bytes 12345.0" in lines
    limit = next(line for line in lines if line.startswith("scpalm_request_memory_limit_bytes "))
    assert float(limit.split()[1]) == memory.limit
    assert any(line.startswith("scpalm_parsers_isolated ") for line in lines)
