"""Liveness and readiness, for orchestrators."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from scpalm.app.errors import NotReadyError, ServiceError
from scpalm.app.http.dependencies import ServiceDep

router = APIRouter(tags=["health"])

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "The check failed; `detail` says why."}}


class Health(BaseModel):
    """Response of a successful liveness check."""

    status: Literal["live"]


class Serving(BaseModel):
    """A model that is being served."""

    name: str
    version: str
    checksum: str = Field(description="Checksum over all files of the bundle.")
    runtime: str
    device: str
    precision: str = Field(description="Precision of the weights in the bundle.")
    cells_per_second: int | None = Field(
        description="Measured with synthetic cells of 1,000 expressed genes when the model was opened."
    )


class Readiness(BaseModel):
    """Response of a successful readiness check."""

    status: Literal["ready"]
    models: list[Serving]


# HEAD, which uptime monitors send, is answered without being listed: two operations of one id are no valid OpenAPI.
@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", operation_id="health_live", response_model=Health, responses=_UNAVAILABLE)
async def live(service: ServiceDep) -> Health:
    """The device loop has made progress recently. If this check keeps failing, restart the process."""
    if not service.live():
        raise NotReadyError("The device loop is dead or makes no progress. Restart the process if this persists.")
    return Health(status="live")


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", operation_id="health_ready", response_model=Readiness, responses=_UNAVAILABLE)
async def ready(service: ServiceDep) -> Readiness:
    """The models are loaded and warm, the device and all background tasks work, the queue is not full, and the service
    is not shutting down."""
    await live(service)
    try:
        service.check_ready()
    except ServiceError as error:
        raise NotReadyError(error.detail, retry_after=error.retry_after) from error
    return Readiness(status="ready", models=[Serving.model_validate(model.facts) for model in service.models.all])
