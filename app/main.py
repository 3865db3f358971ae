"""Build the FastAPI application: routes, middleware and the service. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from scpalm.app.auth.budgets import open_budgets
from scpalm.app.auth.keys import KeyRing
from scpalm.app.codecs.registry import all_readers
from scpalm.app.http import problems
from scpalm.app.http.middleware.access import AccessMiddleware
from scpalm.app.http.middleware.compression import CompressionMiddleware
from scpalm.app.http.middleware.drain import DrainMiddleware
from scpalm.app.http.middleware.guard import GuardMiddleware
from scpalm.app.http.middleware.hosts import AllowedHostsMiddleware
from scpalm.app.http.middleware.paths import TrailingSlashMiddleware
from scpalm.app.http.openapi.document import DescribedApp
from scpalm.app.http.query import refuse_unknown_query
from scpalm.app.http.routes import drugs, health, jobs, models, sample, tasks, views
from scpalm.app.http.routes import metrics as metrics_route
from scpalm.app.http.web import docs, page
from scpalm.app.queue.transport import LANES
from scpalm.app.service import Service
from scpalm.app.serving.opener import OpenSession, open_default_session
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.app.telemetry.tracing import Tracing, TracingMiddleware
from scpalm.app.v2 import routes as inference
from scpalm.app.v2.errors import InferenceErrorMiddleware
from scpalm.model.release import release

_ROUTERS = (
    tasks.router,
    drugs.router,
    jobs.router,
    views.router,
    models.router,
    sample.router,
    health.router,
    inference.router,
    docs.router,
    page.router,
)

# The task routes read their query themselves. Uptime monitors add parameters to health checks.
_STRICT_ROUTERS = (drugs.router, jobs.router, views.router, models.router, sample.router, inference.router)
_STRICT = [Depends(refuse_unknown_query)]


def create_app(
    settings: Settings,
    open_session: OpenSession = open_default_session,
    tracing: Tracing | None = None,
    *,
    worker: bool = False,
) -> FastAPI:
    """Create the application. Models load in the background after startup; /health/ready reports when they are ready.

    Args:
        settings: settings of this process.
        open_session: opens the inference session of a model.
        tracing: where spans are sent. Default: ``settings.otlp_endpoint``, if set.
        worker: True for a process that takes its work from the queue. It serves only health checks and metrics.

    Raises:
        QueueError, SpoolError, KeysFileError, MissingRuntimeError: the settings cannot be used.
    """
    if tracing is None and settings.otlp_endpoint:
        tracing = Tracing.to(settings.otlp_endpoint)
    # With a separate port, metrics are served only there.
    metrics_routers = (metrics_route.router,) if settings.metrics_port is None else ()
    routers = (*((health.router,) if worker else _ROUTERS), *metrics_routers)
    endpoints = [route.path for router in routers for route in router.routes]
    metrics = Metrics(endpoints, [reader.name for reader in all_readers()], LANES)
    service = Service(settings, metrics, open_session, tracing, worker=worker)
    budgets = open_budgets(settings.redis_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()
        await budgets.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = DescribedApp(
        title="scPaLM",
        version=release(),
        summary="Single-cell RNA counts in, cell embeddings out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect without a body looks like success to `curl -fsS -o`
    )
    app.state.service = service
    app.state.budgets = budgets
    app.state.metrics_app = _metrics_app(service)
    for router in routers:
        app.include_router(router, dependencies=_STRICT if router in _STRICT_ROUTERS else None)
    problems.install(app)
    app.add_middleware(DrainMiddleware, service=service)
    app.add_middleware(CompressionMiddleware)
    # A worker has no data of users, and Prometheus calls it by its address.
    app.add_middleware(AllowedHostsMiddleware, allowed=None if worker else settings.served_hosts)
    keys = None if worker or settings.api_keys_file is None else KeyRing(settings.api_keys_file)
    app.needs_key = keys is not None
    app.add_middleware(GuardMiddleware, keys=keys, budgets=budgets)
    app.add_middleware(InferenceErrorMiddleware)
    app.add_middleware(AccessMiddleware, metrics=metrics)
    app.add_middleware(TrailingSlashMiddleware)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    return app


def _metrics_app(service: Service) -> FastAPI:
    """An application that serves metrics and nothing else."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.include_router(metrics_route.router)
    problems.install(app)
    return app
