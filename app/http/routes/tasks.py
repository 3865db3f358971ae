"""POST /{task} for every registered task: cells in, one row per cell out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from scpalm.app.http.dependencies import OwnerDep, ServiceDep
from scpalm.app.http.job_request import accept_job, wants_async
from scpalm.app.http.openapi.answers import cell_responses
from scpalm.app.http.openapi.bodies import cells_body
from scpalm.app.http.openapi.headers import CELL_HEADERS
from scpalm.app.http.query import query_of, spec_of
from scpalm.app.http.request import answer_cells
from scpalm.model.tasks.common_options import CommonOptions
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import AnyTask

router = APIRouter(tags=["cells"])


def _add_route(task: AnyTask) -> None:
    query = query_of(task.name)

    async def run(
        request: Request, service: ServiceDep, owner: OwnerDep, query: Annotated[CommonOptions, Query()]
    ) -> Response:
        spec = spec_of(task.name, request.query_params)
        if wants_async(request.headers.get("prefer", "")):
            return await accept_job(request, service, owner, spec)
        return await answer_cells(request, service, spec)

    # The query type is generated from the task's options, so FastAPI gets its annotation at run time.
    run.__annotations__["query"] = Annotated[query, Query()]
    router.add_api_route(
        f"/{task.name}",
        run,
        methods=["POST"],
        name=task.name,
        operation_id=task.name,
        description=task.summary,
        response_class=Response,
        openapi_extra={"requestBody": cells_body(task), "parameters": CELL_HEADERS},
        responses=cell_responses(task),
    )


for _task in tasks().values():
    _add_route(_task)
