"""POST /{task} for every registered task: cells in, one row per cell out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, create_model

from scpalm.app.http.dependencies import OwnerDep, ServiceDep
from scpalm.app.http.job_request import accept_job, wants_async
from scpalm.app.http.query import query_of, spec_of
from scpalm.app.http.request import answer_cells
from scpalm.app.http.schemas import SparseCells, UploadForm, cells_body, cells_responses
from scpalm.model.spec import RequestSpec
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
    members = {} if task.members is None else dict(task.members.model_fields)
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in members.items()}
    title, spec = task.name.capitalize(), RequestSpec((task.name,))
    own = query_of(task.name).model_fields
    # Options may stand in the body, too. Those of the query have the types; here, none is required.
    json_options: dict[str, Any] = {
        name: (own[option].annotation, own[option])
        for name, option in spec.option_names("JSON member").items()
        if name not in fields
    }
    form_options: dict[str, Any] = {
        name: (str | None, Field(None, description=own[name].description)) for name in spec.option_names("form field")
    }
    json: Any = create_model(f"{title}Cells", __base__=SparseCells, **fields, **json_options)
    form: Any = create_model(f"{title}Form", __base__=UploadForm, **form_options)
    return cells_body(json, form)


for _task in tasks().values():
    _add_route(_task)
