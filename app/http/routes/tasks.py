"""POST /embed, /impute, /pathways: cells in, one row a cell out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from scpalm.app.errors import InvalidParameterError
from scpalm.app.http.dependencies import OwnerDep, ServiceDep
from scpalm.app.http.request import Options, answer_cells
from scpalm.app.http.schemas import CELLS_BODY, PROBLEMS, CellsAnswer
from scpalm.app.http.submit_job import accept_job, wants_async
from scpalm.app.parsing.pool import Opened
from scpalm.app.serving.model import Model
from scpalm.app.serving.service import Service
from scpalm.app.tasks.plans import Asked, names_in
from scpalm.app.tasks.task import Task
from scpalm.model.genes.normalize import Declared

router = APIRouter(tags=["cells"])

_H5AD = "application/x-hdf5"

ModelName = Annotated[
    str | None,
    Query(
        description="Name of the model, as in GET /models. Default: the one that is marked there.",
        max_length=200,
        examples=["mini"],
    ),
]
Layer = Annotated[
    str | None,
    Query(
        description="Which matrix of an h5ad file: `raw` for raw.X, or the name of a layer. Default: X.", max_length=200
    ),
]
Input = Annotated[
    Declared,
    Query(alias="input", description="What the values are: raw counts, log1p-normalised, or found out (auto)."),
]
Also = Annotated[
    str,
    Query(
        description="More results of the same pass of the network: `embed`, `pathways`, `impute`, comma-separated.",
        max_length=100,
        examples=["pathways,impute"],
    ),
]
Genes = Annotated[
    str,
    Query(
        description="Genes to impute, comma-separated: symbols, aliases or Ensembl ids. Default: all that the model "
        "knows; of those an h5ad answer gets the file's own columns, as `layers['scpalm_imputed']`.",
        max_length=200_000,
        examples=["CD3D,NKG7,LYZ"],
    ),
]
ScaleQuery = Annotated[
    Literal["log", "counts"],
    Query(alias="scale", description="log: log1p CP10K. counts: at the cell's own depth."),
]
Summary = Annotated[
    bool, Query(description="Share of the cell's tokens that have each code, instead of the code of each token.")
]


async def _wishes(also: Also = "", genes: Genes = "", scale: ScaleQuery = "log", summary: Summary = False) -> Asked:
    return Asked(names_in(also), names_in(genes), scale, summary)


# What a query says beside the route's own task; `/embed?also=impute` reads the options of both.
Wishes = Annotated[Asked, Depends(_wishes)]


def responses(values: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": CellsAnswer,
            "description": f"{values} By `Accept`: JSON, h5ad, Arrow or npy. Default: as the body.",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in (_H5AD, "application/vnd.apache.arrow.stream", "application/x-npy")
            },
            "headers": {
                "Server-Timing": {
                    "description": "Milliseconds of parse, queue, inference and encode; parse and inference overlap.",
                    "schema": {"type": "string"},
                }
            },
        },
        202: {
            "description": "With `Prefer: respond-async`: a job was accepted, see `Location`.",
            "headers": {"Location": {"description": "`/jobs/{id}`.", "schema": {"type": "string"}}},
        },
        **PROBLEMS,
    }


def options_of(asked: Asked, model: str | None, layer: str | None, declared: Declared) -> Options:
    """Options of a request that asks for these tasks."""

    def plan(model: Model, opened: Opened, media_type: str) -> tuple[Task, ...]:
        target = opened.target if media_type == _H5AD else None
        return asked.tasks(model.bundle, model.info, target, opened.extras, opened.num_cells)

    return Options(plan, layer, declared, asked.extras, model, quick=asked.quick)


async def answer(
    request: Request,
    service: Service,
    owner: str,
    asked: Asked,
    model: str | None,
    layer: str | None,
    declared: Declared,
) -> Response:
    """The answer, or with `Prefer: respond-async` the job."""
    if any("\0" in gene for gene in asked.genes) or (layer is not None and "\0" in layer):
        raise InvalidParameterError("A name holds a NUL character. Remove it.", field="genes")
    if wants_async(request.headers.get("prefer", "")):
        return await accept_job(request, service, owner, asked, model, layer, declared)
    return await answer_cells(request, service, options_of(asked, model, layer, declared))


@router.post(
    "/embed",
    operation_id="embed",
    response_class=Response,
    openapi_extra={"requestBody": CELLS_BODY},
    responses=responses("One vector a cell, in h5ad `obsm['X_scpalm']`."),
)
async def embed(
    request: Request,
    service: ServiceDep,
    owner: OwnerDep,
    wishes: Wishes,
    model: ModelName = None,
    layer: Layer = None,
    declared: Input = "auto",
) -> Response:
    """One vector `h_C` a cell, in the order of the cells. The same cell gives the same vector in any company."""
    return await answer(request, service, owner, wishes.with_task("embed"), model, layer, declared)


@router.post(
    "/impute",
    operation_id="impute",
    response_class=Response,
    openapi_extra={"requestBody": CELLS_BODY},
    responses=responses("One value a cell and gene; `columns` names the genes."),
)
async def impute(
    request: Request,
    service: ServiceDep,
    owner: OwnerDep,
    wishes: Wishes,
    model: ModelName = None,
    layer: Layer = None,
    declared: Input = "auto",
) -> Response:
    """Expression as the model's decoder sees it in the pathway codes of each cell; never below 0."""
    return await answer(request, service, owner, wishes.with_task("impute"), model, layer, declared)


@router.post(
    "/pathways",
    operation_id="pathways",
    response_class=Response,
    openapi_extra={"requestBody": CELLS_BODY},
    responses=responses("One code index a cell and token, in h5ad `obsm['X_scpalm_pathways']`; or shares of codes."),
)
async def pathways(
    request: Request,
    service: ServiceDep,
    owner: OwnerDep,
    wishes: Wishes,
    model: ModelName = None,
    layer: Layer = None,
    declared: Input = "auto",
) -> Response:
    """Which pathway code each token of a cell has; with `summary`, the share of its tokens that have each code."""
    return await answer(request, service, owner, wishes.with_task("pathways"), model, layer, declared)
