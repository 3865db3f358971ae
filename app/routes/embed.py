"""POST /embed: cells in, one embedding a cell out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.pipeline import Options, answer_cells
from app.routes import ServiceDep
from app.routes.schemas import CELLS_BODY, PROBLEMS, EmbeddingAnswer
from model.normalize import Declared

router = APIRouter(tags=["cells"])

EMBEDDING_KEY = "X_scpalm"

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


@router.post(
    "/embed",
    operation_id="embed",
    response_class=Response,
    openapi_extra={"requestBody": CELLS_BODY},
    responses={
        200: {
            "model": EmbeddingAnswer,
            "description": "By `Accept`: JSON, or the h5ad file with `obsm['X_scpalm']`. Default: as the body.",
            "content": {"application/x-hdf5": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "Server-Timing": {
                    "description": "Milliseconds of parse, queue, inference and encode.",
                    "schema": {"type": "string"},
                }
            },
        },
        **PROBLEMS,
    },
)
async def embed(request: Request, service: ServiceDep, layer: Layer = None, declared: Input = "auto") -> Response:
    """One vector `h_C` a cell, in the order of the cells. The same cell gives the same vector in any company."""
    return await answer_cells(request, service, Options("embed", layer, declared, EMBEDDING_KEY))
