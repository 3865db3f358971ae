"""The text of /metrics: small, rendered seldom, and never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scpalm.app.queue.transport import LANES
from scpalm.app.telemetry import metrics_page
from scpalm.app.telemetry.metrics import Metrics
from scpalm.app.telemetry.metrics_page import MetricsPage
from scpalm.app.telemetry.request_metrics import STATUSES
from tests.app.fakes import Client
from tests.loop_lag import LoopLag

MAX_BYTES = 300_000


def test_the_text_of_an_idle_service_is_small(client: Client) -> None:
    assert len(client.get("/metrics").content) < 0.5 * MAX_BYTES  # grows with each route


def test_the_text_stays_small_under_requests_of_every_kind(client: Client) -> None:
    paths = set(client.app.openapi()["paths"])
    metrics = Metrics(paths, ["json", "h5ad", "arrow"], LANES)
    for path in [*paths, "/no/such/path"]:
        for status in ("200", "202", "400", "404", "405", "409", "413", "422", "429", "500", "503", "507"):
            assert status in STATUSES
            metrics.observe_request(path, int(status), 0.1)
        for num_cells in (1, 100, 10_000):
            metrics.observe_request(path, 200, 0.1, num_cells)
    text = generate_latest(metrics.registry)
    assert len(text) < MAX_BYTES
    counts = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == "scpalm_request_duration_seconds_count"
    }
    assert counts["/embed", "413"] == 1 and counts["other", "404"] == 1
    assert counts["/jobs/{job_id}", "400"] == 7, "statuses of other routes are reported by their class"


def test_times_of_answers_are_counted_by_route_and_size() -> None:
    metrics = Metrics(["/embed", "/genes"], ["json"], LANES)
    for num_cells in (1, 2, 512, 513, 9_000):
        metrics.observe_request("/embed", 200, 0.0032, num_cells)
    metrics.observe_request("/embed", 422, 0.1, 1)
    metrics.observe_request("/embed", 202, 0.1, 600)
    metrics.observe_request("/genes", 200, 0.1, None)
    text = generate_latest(metrics.registry).decode()
    for size, count in (("cell", 1), ("batch", 2), ("file", 2)):
        labels = f'endpoint="/embed",size="{size}"'
        assert f"scpalm_answer_duration_seconds_count{{{labels}}} {count}.0\n" in text
        for bound, within in (("0.003", 0), ("0.004", count)):
            assert (
                f'scpalm_answer_duration_seconds_bucket{{endpoint="/embed",le="{bound}",size="{size}"}} {within}.0'
                in text
            )
    assert text.count("scpalm_answer_duration_seconds_count") == 3, "refusals, jobs and other routes do not count"


def test_many_scrapes_render_once_and_leave_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_page, "KEEP_SECONDS", 60.0)
    rendered = 0

    def render(registry: CollectorRegistry) -> bytes:
        nonlocal rendered
        rendered += 1
        return generate_latest(registry)

    monkeypatch.setattr(metrics_page, "generate_latest", render)
    registry = CollectorRegistry()
    counter = Counter("big", "Many label sets.", ["label"], registry=registry)
    for number in range(30_000):
        counter.labels(str(number)).inc()

    async def scenario() -> None:
        page = MetricsPage(registry)
        with LoopLag(asyncio.get_running_loop()):
            texts = await asyncio.gather(*(page.text() for _ in range(20)))
        assert len(set(texts)) == 1 and len(texts[0]) > 500_000

    asyncio.run(scenario())
    assert rendered == 1


def test_a_separate_port_is_the_only_place(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(metrics_port=0)
    with Client(app) as client:
        client.wait_until_loaded()
        assert client.get("/metrics").status_code == 404

        async def scrape() -> httpx.Response:
            transport = httpx.ASGITransport(app.state.metrics_app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                assert (await http.get("/embed")).status_code == 404, "nothing else is there"
                return await http.get("/metrics")

        assert b"scpalm_rows_total" in client.run(scrape()).content
