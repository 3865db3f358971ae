"""The app: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from app import problems
from app.codecs import CODECS
from app.codecs.inference import InferenceCodec
from app.compression import CompressionMiddleware
from app.guard import GuardMiddleware
from app.inference.errors import InferenceErrorMiddleware
from app.keys import KeyRing
from app.routes import cells, health, ic50, inference, jobs, models
from app.served import OpenSession, open_default_session
from app.service import Service
from app.settings import Settings
from app.telemetry.access import AccessMiddleware
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import Tracing, TracingMiddleware
from app.web import docs

_ROUTERS = (cells.router, ic50.router, jobs.router, models.router, health.router, inference.router, docs.router)


def release() -> str:
    """Version of the installed package."""
    try:
        return version("scpalm")
    except PackageNotFoundError:
        return "0+source"


def create_app(
    settings: Settings,
    open_session: OpenSession = open_default_session,
    tracing: Tracing | None = None,
    *,
    worker: bool = False,
) -> FastAPI:
    """A service of one bundle. The model is loaded once the app has started; /health/ready tells when it is.

    ``tracing``: where spans go; default: what the settings name. ``worker``: of a process that takes its work from
    Redis; it answers probes and scrapes alone.
    """
    if tracing is None and settings.otlp_endpoint:
        tracing = Tracing.to(settings.otlp_endpoint)
    routers = (health.router,) if worker else _ROUTERS
    endpoints = [route.path for router in routers for route in router.routes]  # type: ignore[attr-defined]
    metrics = Metrics(endpoints, [*(codec.name for codec in CODECS), InferenceCodec.name])
    service = Service(settings, metrics, open_session, tracing, worker=worker)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()
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
    for router in routers:
        app.include_router(router)
    problems.install(app)
    app.add_middleware(CompressionMiddleware)
    keys = None if worker or settings.api_keys_file is None else KeyRing(settings.api_keys_file)
    app.add_middleware(GuardMiddleware, keys=keys)
    app.add_middleware(InferenceErrorMiddleware)
    app.add_middleware(AccessMiddleware, metrics=metrics)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    return app
