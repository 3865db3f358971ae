"""POST /{task} for every registered task: cells in, one row per cell out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import create_model

from scpalm.app.http.dependencies import OwnerDep, ServiceDep
from scpalm.app.http.job_request import accept_job, wants_async
from scpalm.app.http.query import query_of, spec_of
from scpalm.app.http.request import answer_cells
from scpalm.app.http.schemas import SparseCells, UploadForm, cells_body, cells_responses
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
        openapi_extra={"requestBody": _body(task)},
        responses=cells_responses(task.result),
    )


def _body(task: AnyTask) -> dict[str, Any]:
    if task.members is None:
        return cells_body(SparseCells, UploadForm)
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in task.members.model_fields.items()}
    title = task.name.capitalize()
    json = create_model(f"{title}Cells", __base__=SparseCells, **fields)
    # Form fields can hold only lists of words, so other members are not declared in the form.
    options = {name: (str | None, fields[name][1]) for name in task.options.model_fields if name in fields}
    form: Any = create_model(f"{title}Form", __base__=UploadForm, **options)  # type: ignore[call-overload]
    return cells_body(json, form)


for _task in tasks().values():
    _add_route(_task)
