"""Liveness, readiness and metrics, for orchestrators and scrapers."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from scpalm.app.errors import NotReadyError, ServiceError
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.problems import Problem

router = APIRouter(tags=["health"])

_NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "Not now; `detail` says why."}}


class Health(BaseModel):
    """A probe's good news."""

    status: Literal["live"]


class Serving(BaseModel):
    """A model that serves."""

    name: str
    version: str
    checksum: str = Field(description="Over all files of the bundle.")
    runtime: str
    device: str
    precision: str = Field(description="How the bundle keeps its weights.")
    cells_per_second: int | None = Field(
        description="Of made-up cells with 1,000 expressed genes, measured when the model was opened."
    )


class Readiness(BaseModel):
    """Ready, and with what."""

    status: Literal["ready"]
    models: list[Serving]


@router.get("/health/live", operation_id="health_live", response_model=Health, responses=_NOT_NOW)
async def live(service: ServiceDep) -> Health:
    """The device loop moved lately. A failing answer means: restart this process."""
    if not service.live():
        raise NotReadyError("The device loop is dead or has not moved lately. Restart the process if this lasts.")
    return Health(status="live")


@router.get("/health/ready", operation_id="health_ready", response_model=Readiness, responses=_NOT_NOW)
async def ready(service: ServiceDep) -> Readiness:
    """The model is loaded and warmed up, its device works, the queue has room, no shutdown is under way."""
    await live(service)
    try:
        service.ready_model()
    except ServiceError as error:
        raise NotReadyError(error.detail, retry_after=error.retry_after) from error
    return Readiness(status="ready", models=[Serving.model_validate(model.facts) for model in service.models.all])


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(service: ServiceDep) -> Response:
    """The `scpalm_*` metrics."""
    return Response(generate_latest(service.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
