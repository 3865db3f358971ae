"""Builds the application: routes, middleware and the service behind them. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from scpalm.app.auth.budgets import open_budgets
from scpalm.app.auth.keys import KeyRing
from scpalm.app.codecs.registry import all_readers
from scpalm.app.http import problems
from scpalm.app.http.middleware.access import AccessMiddleware
from scpalm.app.http.middleware.compression import CompressionMiddleware
from scpalm.app.http.middleware.guard import GuardMiddleware
from scpalm.app.http.routes import drugs, health, jobs, models, tasks
from scpalm.app.http.web import docs
from scpalm.app.queue.transport import LANES
from scpalm.app.service import Service
from scpalm.app.serving.opener import OpenSession, open_default_session
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.app.telemetry.tracing import Tracing, TracingMiddleware
from scpalm.app.v2 import routes as inference
from scpalm.app.v2.errors import InferenceErrorMiddleware
from scpalm.model.release import release

_ROUTERS = (tasks.router, drugs.router, jobs.router, models.router, health.router, inference.router, docs.router)


def create_app(
    settings: Settings,
    open_session: OpenSession = open_default_session,
    tracing: Tracing | None = None,
    *,
    worker: bool = False,
) -> FastAPI:
    """The application. Models load once it has started; /health/ready says when they are loaded.

    Args:
        open_session: opens a model's session. tracing: where spans go; default: where the settings say.
        worker: for a process that takes its work from the queue; it answers only probes and scrapes.

    Raises QueueError, SpoolError, KeysFileError, MissingRuntimeError for settings that cannot be used.
    """
    if tracing is None and settings.otlp_endpoint:
        tracing = Tracing.to(settings.otlp_endpoint)
    routers = (health.router,) if worker else _ROUTERS
    endpoints = [route.path for router in routers for route in router.routes]  # type: ignore[attr-defined]
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

    app = FastAPI(
        title="scPaLM",
        version=release(),
        summary="Single-cell RNA counts in, cell embeddings out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.budgets = budgets
    for router in routers:
        app.include_router(router)
    problems.install(app)
    app.add_middleware(CompressionMiddleware)
    keys = None if worker or settings.api_keys_file is None else KeyRing(settings.api_keys_file)
    app.add_middleware(GuardMiddleware, keys=keys, budgets=budgets)
    app.add_middleware(InferenceErrorMiddleware)
    app.add_middleware(AccessMiddleware, metrics=metrics)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    return app
