"""GET /sample: a small real file to try the service with."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from scpalm.app.codecs.h5ad import MEDIA_TYPE
from scpalm.app.errors import NotFoundError
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.openapi.components import BINARY
from scpalm.app.offline.sample import write_sample
from scpalm.app.storage.scratch import ensure_folder
from scpalm.model.errors import InputError

router = APIRouter(tags=["cells"])

_NAME = "sample.h5ad"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {MEDIA_TYPE: BINARY}},
    404: {"description": "The sample is not installed."},
}


@router.get("/sample", operation_id="get_sample", response_class=FileResponse, responses=_RESPONSES)
async def get_sample(service: ServiceDep) -> FileResponse:
    """Get a small h5ad file with counts of real cells, the same as `scpalm sample` writes."""
    target = ensure_folder(service.limits.spool_dir) / _NAME
    async with service.answer_locks.setdefault((_NAME, MEDIA_TYPE), asyncio.Lock()):
        if not target.exists():
            try:
                await asyncio.to_thread(write_sample, target)
            except InputError as error:
                raise NotFoundError(str(error)) from error
    return FileResponse(target, media_type=MEDIA_TYPE, filename=_NAME)
