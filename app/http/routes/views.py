"""What the cells of a finished job look like: one column, gene or code at a time, for the page at ``/``."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError

from scpalm.app.errors import InvalidParameterError, JobModelGoneError, JobNotFinishedError, TooLargeError
from scpalm.app.http.dependencies import ServiceDep, ViewerDep, charge_cells
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.job_request import accept_more
from scpalm.app.http.openapi.answers import JobAccepted
from scpalm.app.http.openapi.components import BINARY, answer_schema, body_schema, json_answer
from scpalm.app.http.openapi.headers import JOB_ANSWER_HEADERS
from scpalm.app.http.openapi.views import (
    CategoryColumn,
    Differences,
    GroupProfiles,
    NumberColumn,
    Rows,
    ViewDescription,
)
from scpalm.app.http.routes.jobs import job_of
from scpalm.app.jobs.manifest import Manifest
from scpalm.app.jobs.view.columns import Column
from scpalm.app.jobs.view.view import JobView, Source, names_of_groups
from scpalm.app.service import Service
from scpalm.app.storage.scratch import scratch_folder

router = APIRouter(tags=["jobs"])

NPY = "application/x-npy"
_NUM_GENES, _NUM_CODES = 50, 30
_MOST_GROUPS = 500
_MOST_BODY_BYTES = 16 << 20
_ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"description": "No such job, column, gene or code."},
    409: {"description": "The job has not succeeded, or its model is no longer served."},
}
_CELL_NAMES: dict[str, Any] = {
    "description": "Names of the cells.",
    "content": {"application/json": {"schema": {"type": "array", "items": {"type": "string"}}}},
}

SourceQuery = Annotated[
    Source,
    Query(
        description="`obs`: a column of the file. `result`: an output of the job. `code`: share of a cell's tokens "
        "with this code. `map`: a map in the file. `gene`: measured, `imputed`: imputed log1p CP10K."
    ),
]
NameQuery = Annotated[str, Query(description="Name of the column, output, map or gene; number of the code.")]


MoreTask = Annotated[Literal["embed", "pathways", "annotate", "umap"], Query(description="The task.")]


@asynccontextmanager
async def _view(
    job_id: str, service: Service, owner: str | None, *, while_running: bool = False
) -> AsyncIterator[JobView]:
    """The cells of a job. Raises UnknownJobError, JobNotFinishedError, JobModelGoneError."""
    job = await job_of(job_id, service, owner)
    if job.state != "succeeded" and not (while_running and job.state == "running" and job.rows_done):
        raise JobNotFinishedError(f"The job is {job.state}. Its cells can be looked at once it has succeeded.")
    manifest = Manifest.from_json(job.manifest)
    model = service.models.exactly(manifest.model)
    if model is None:
        name, version, _ = manifest.model
        raise JobModelGoneError(f"The model of this job, {name} {version}, was replaced. Send the cells again.")
    lock = service.answer_locks.setdefault((job.id, "view"), asyncio.Lock())
    with model.held():
        async with scratch_folder(service.limits.spool_dir) as folder:
            yield JobView(service.jobs.files_of(job), manifest, model, folder, lock)


def _json(content: object) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@router.get(
    "/jobs/{job_id}/view",
    operation_id="get_job_view",
    response_class=Response,
    responses={200: json_answer(ViewDescription, "What there is to look at."), **_ERRORS},
)
async def get_view(job_id: str, request: Request, service: ServiceDep, owner: ViewerDep) -> Response:
    """Say what there is to look at: number of cells, outputs, columns and maps of the file, how the cells were read.

    Known as soon as the first cells of a running job are done.
    """
    async with _view(job_id, service, owner, while_running=True) as view:
        return _json(await unless_disconnected(request, view.describe()))


@router.get(
    "/jobs/{job_id}/cells",
    operation_id="get_job_cells",
    response_class=Response,
    responses={200: _CELL_NAMES, **_ERRORS},
)
async def get_cells(job_id: str, request: Request, service: ServiceDep, owner: ViewerDep) -> Response:
    """Get the names of the cells as a JSON list, already while the job computes.

    Reads the expression of the cells, gene by gene, if that has not been done; the first gene is fast then.
    """
    async with _view(job_id, service, owner, while_running=True) as view:
        return _json(await unless_disconnected(request, view.cells()))


@router.get(
    "/jobs/{job_id}/column",
    operation_id="get_job_column",
    response_class=Response,
    responses={
        200: {
            "description": "JSON: `kind` (`numbers` or `categories`), `values`, and `categories` for texts, whose "
            "values are positions in them, -1 where missing. If `Accept` names application/x-npy, numbers are an array "
            "of float32.",
            "content": {
                "application/json": {"schema": {"anyOf": [answer_schema(CategoryColumn), answer_schema(NumberColumn)]}},
                NPY: BINARY,
            },
        },
        **_ERRORS,
    },
)
async def get_column(
    job_id: str, request: Request, service: ServiceDep, owner: ViewerDep, source: SourceQuery, name: NameQuery
) -> Response:
    """Get one value for each cell. The first imputed gene of a job takes as long as `POST /impute`."""
    async with _view(job_id, service, owner) as view:
        if source == "imputed" and not await view.is_imputed(name):
            await charge_cells(request, (await view.describe())["num_cells"])
        column = await unless_disconnected(request, view.column(source, name))
    return _column(column, request.headers.get("accept", ""))


def _column(column: Column, accept: str) -> Response:
    if column.categories is None and NPY in accept:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(column.values, np.float32))
        return Response(buffer.getvalue(), media_type=NPY)
    return _json(column.as_dict())


@router.get(
    "/jobs/{job_id}/profiles",
    operation_id="get_job_profiles",
    response_class=Response,
    responses={200: json_answer(GroupProfiles, "Cells as for POST /ic50, one for each group."), **_ERRORS},
)
async def get_profiles(
    job_id: str, request: Request, service: ServiceDep, owner: ViewerDep, source: SourceQuery, name: NameQuery
) -> Response:
    """Sum the counts of each group of cells (pseudo-bulk). The answer is a body for `POST /ic50`.

    `values` says what the sums are: `counts`, or `linear` if the file has no counts.
    """
    async with _view(job_id, service, owner) as view:
        column = await view.column(source, name)
        groups = names_of_groups(column)
        if len(groups) > _MOST_GROUPS:
            raise InvalidParameterError(f"There are {len(groups)} groups; at most {_MOST_GROUPS} are summed.")
        expression = await view.expression()
        sums = await asyncio.to_thread(expression.sums, column.values, len(groups))
        symbols = view.model.bundle.vocabulary.symbols
    kind = "counts" if expression.kind == "counts" else "linear"
    sizes = np.bincount(column.values[column.values >= 0], minlength=len(groups))
    return _json(await asyncio.to_thread(_as_cells, sums, groups, symbols, (kind, sizes)))


def _as_cells(
    sums: NDArray[np.float64], groups: Any, symbols: Any, facts: tuple[str, NDArray[np.int64]]
) -> dict[str, Any]:
    kind, sizes = facts
    used = np.flatnonzero(sums.any(axis=0))
    kept = np.flatnonzero(sums.any(axis=1))
    table = sums[np.ix_(kept, used)]
    rows, columns = np.nonzero(table)
    return {
        "genes": [symbols[gene] for gene in used],
        "obs_names": [groups[group] for group in kept],
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(kept)))]),
        "indices": np.ascontiguousarray(columns),
        "data": np.ascontiguousarray(table[rows, columns]),
        "values": kind,
        "num_cells": sizes[kept],
    }


@router.post(
    "/jobs/{job_id}/selection",
    operation_id="describe_selection",
    response_class=Response,
    responses={200: json_answer(Differences, "The genes, or the codes, that differ most."), **_ERRORS},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema(Rows)}}}},
)
async def describe_selection(job_id: str, request: Request, service: ServiceDep, owner: ViewerDep) -> Response:
    """Compare selected cells with all others: the genes and codes that differ most.

    `genes`: mean log1p CP10K `inside` and `outside`. `codes`: mean share of tokens `inside` and `outside`.
    """
    rows = await _rows(request)
    async with _view(job_id, service, owner) as view:
        if rows.compare == "codes":
            codes = await asyncio.to_thread(view.codes)
            shares = _shares(codes, _selected(rows, len(codes)), view.model.info.num_codes)
            return _json({"codes": [{"code": at, **pair} for at, pair in _most_different(*shares, _NUM_CODES)]})
        expression = await view.expression()
        means = await asyncio.to_thread(expression.means, _selected(rows, len(expression.cells)))
        symbols = view.model.bundle.vocabulary.symbols
    return _json({"genes": [{"gene": symbols[at], **pair} for at, pair in _most_different(*means, _NUM_GENES)]})


async def _rows(request: Request) -> Rows:
    """The body, read only as far as it may be long. Raises TooLargeError, InvalidParameterError."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY_BYTES:
            raise TooLargeError(f"The list of cells is longer than {_MOST_BODY_BYTES} bytes.", field="rows")
    try:
        return Rows.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "rows"
        raise InvalidParameterError(f"'{field}': {first['msg']}.", field=field) from error


def _selected(rows: Rows, num_cells: int) -> NDArray[np.bool_]:
    """``[B]`` whether each cell is selected. Raises InvalidParameterError."""
    if (largest := max(rows.rows)) >= num_cells:
        raise InvalidParameterError(f"There is no cell {largest}: the job has {num_cells}.", field="rows")
    selected = np.zeros(num_cells, bool)
    selected[np.array(rows.rows)] = True
    return selected


def _shares(
    codes: NDArray[np.int32], selected: NDArray[np.bool_], num_codes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean share of tokens with each code, of the selected cells and of the others."""
    inside, outside = (np.bincount(part.ravel(), minlength=num_codes) for part in (codes[selected], codes[~selected]))
    return inside / max(1, inside.sum()), outside / max(1, outside.sum())


def _most_different(
    inside: NDArray[np.float64], outside: NDArray[np.float64], num: int
) -> list[tuple[int, dict[str, float]]]:
    """Positions with the largest excess inside, and both values."""
    best = np.argsort(outside - inside, kind="stable")[:num]
    return [
        (int(at), {"inside": round(float(inside[at]), 5), "outside": round(float(outside[at]), 5)})
        for at in best
        if inside[at] > outside[at]
    ]


@router.post(
    "/jobs/{job_id}/more",
    operation_id="compute_more",
    response_class=Response,
    status_code=202,
    responses={202: json_answer(JobAccepted, "The job.") | {"headers": JOB_ANSWER_HEADERS}, **_ERRORS},
)
async def compute_more(
    job_id: str, request: Request, service: ServiceDep, owner: ViewerDep, task: MoreTask = "pathways"
) -> Response:
    """Start a job with another task for the same cells, without sending them again. Asked twice, it is one job."""
    job = await job_of(job_id, service, owner)
    if job.state != "succeeded":
        raise JobNotFinishedError(f"The job is {job.state}.")
    async with scratch_folder(service.limits.spool_dir) as folder:
        return await accept_more(request, service, job, task, folder)
