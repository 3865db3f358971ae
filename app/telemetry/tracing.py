"""Traces of requests with OpenTelemetry (the extra ``[tracing]``): the route, then parse, queue, inference and encode.

OpenTelemetry is imported only when ``SCPALM_OTLP_ENDPOINT`` names a collector. A span holds times, the route, the
status and the number of cells, and nothing else about the cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scpalm.model.errors import MissingRuntimeError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

PACKAGES = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_QUIET = ("/health/", "/metrics", "/v2/health/", "/docs")


def missing_package() -> str | None:
    """The first package that tracing needs and that is not installed; None when all are."""
    for name in PACKAGES:
        try:
            if find_spec(name) is None:
                return name
        except ModuleNotFoundError:
            return name
    return None


class Tracing:
    """Makes spans and sends them to ``processor``."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        try:
            release = version("scpalm")
        except PackageNotFoundError:
            release = "0+source"
        # Not the global provider: the process that embeds this app may have set that one up.
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "scpalm", "service.version": release}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("scpalm")

    @classmethod
    def to(cls, endpoint: str) -> Tracing:
        """Send spans over OTLP/HTTP in the background, to a collector such as ``http://collector:4318``."""
        if (name := missing_package()) is not None:
            raise MissingRuntimeError(
                f"SCPALM_OTLP_ENDPOINT: {name} is not installed; pip install 'scpalm[tracing]', or leave it empty."
            )
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        address = endpoint if endpoint.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))

    def close(self) -> None:
        """Send the remaining spans, and end."""
        self._provider.shutdown()

    @contextmanager
    def request(self, headers: Headers, method: str) -> Iterator[Span]:
        """The span of a request, current inside the block; a child of the span that ``traceparent`` names, if any."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(dict(headers.items()))
        with self._tracer.start_as_current_span(method, parent, kind=SpanKind.SERVER) as span:
            yield span

    def stages(self, stages: Sequence[tuple[str, float, float]], **attributes: str | int) -> None:
        """Add children of the current span afterwards: name, start and end by ``time.monotonic()``."""
        offset = time.time_ns() - round(time.monotonic() * 1e9)
        for name, start, end in stages:
            span = self._tracer.start_span(name, start_time=offset + round(start * 1e9), attributes=attributes)
            span.end(offset + round(max(start, end) * 1e9))


class TracingMiddleware:
    """One span per request, none for probes and scrapes. Plain ASGI."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_QUIET):
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import Status, StatusCode

        method: str = scope["method"]
        with self._tracing.request(Headers(scope=scope), method) as span:

            async def note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            try:
                await self._app(scope, receive, note)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.request.method": method, "http.route": route})
                if request_id := scope.get("state", {}).get("request_id"):
                    span.set_attribute("scpalm.request_id", request_id)
