from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scpalm.app.main import create_app
from scpalm.app.settings import Settings, SettingsError, load_settings
from scpalm.model.errors import MissingRuntimeError
from tests.app.fakes import Client, FakeSession
from tests.fuzz.mutations import good_json

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry is not installed")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from scpalm.app.telemetry.tracing import Tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"


EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """The spans of this test alone."""
    EXPORTER.clear()
    return EXPORTER


@pytest.fixture(scope="module")
def client(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = Settings(bundle=bundle_dir, spool_dir=tmp_path_factory.mktemp("traced"), parser_processes=1)
    app = create_app(settings, lambda *_: FakeSession(), Tracing(SimpleSpanProcessor(EXPORTER)))
    with Client(app) as running:
        yield running.wait_until_loaded()


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_request_is_a_span_in_the_callers_trace_with_its_stages_in_order(
    client: Client, spans: InMemorySpanExporter
) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "mine"}
    assert client.post("/embed", json=good_json(), headers=headers).status_code == 200
    found = by_name(spans)
    assert set(found) == {"POST /embed", "parse", "queue", "inference", "encode"}
    root = found["POST /embed"]
    assert root.context is not None and f"{root.context.trace_id:032x}" == TRACE
    assert root.parent is not None and f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert root.attributes is not None
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["scpalm.request_id"] == "mine"
    for name in ("parse", "queue", "inference", "encode"):
        child = found[name]
        assert child.parent is not None and child.parent.span_id == root.context.span_id
        assert child.attributes is not None and child.attributes["cells"] == 6
        assert child.start_time and child.end_time and root.start_time and root.end_time
        assert root.start_time - 1e6 <= child.start_time <= child.end_time <= root.end_time + 1e6
    ends = [found[name].end_time or 0 for name in ("parse", "inference", "encode")]
    assert ends == sorted(ends)


def test_refusals_are_spans_and_probes_are_not(client: Client, spans: InMemorySpanExporter) -> None:
    client.get("/health/ready")
    client.get("/metrics")
    assert not spans.get_finished_spans()
    client.post("/embed", content=b"{", headers={"content-type": "application/json"})
    found = by_name(spans)["POST /embed"]
    assert found.attributes is not None and found.attributes["http.response.status_code"] == 400
    text = found.to_json()
    assert "GENE" not in text and "cell0" not in text


def test_tracing_settings_need_the_otlp_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(otlp_endpoint="http://collector:4318").otlp_endpoint
    with pytest.raises(SettingsError, match=r"OTLP_ENDPOINT.*not an HTTP address"):
        load_settings(otlp_endpoint="collector")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    monkeypatch.setattr(
        "scpalm.app.telemetry.tracing.find_spec", lambda name: None if name.endswith("http") else object()
    )
    with pytest.raises(MissingRuntimeError, match=r"scpalm\[tracing\]"):
        Tracing.to("http://collector:4318")
