"""The metrics of this process, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.telemetry.metrics_page import MEDIA_TYPE

router = APIRouter(tags=["health"])


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(service: ServiceDep) -> Response:
    """The `scpalm_*` metrics in Prometheus text format, at most a second old. With API keys this route needs
    one, unless `SCPALM_METRICS_PORT` sets a separate port."""
    return Response(await service.metrics_page.text(), headers={"Content-Type": MEDIA_TYPE})
