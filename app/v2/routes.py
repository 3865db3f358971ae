"""/v2: the Open Inference Protocol, for clients that speak it to any server (KServe, Triton's)."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from scpalm.app.codecs.registry import Answer
from scpalm.app.errors import InvalidParameterError
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.problems import Problem
from scpalm.app.http.request import Options, answer_cells
from scpalm.app.http.routes.cells import Input
from scpalm.app.http.routes.health import live, ready
from scpalm.app.http.schemas import PROBLEMS
from scpalm.app.parsing.pool import Opened
from scpalm.app.serving.model import Model
from scpalm.app.tasks.task import Task
from scpalm.app.v2.codec import MEDIA_TYPE
from scpalm.app.v2.outputs import EXTRAS, OUTPUTS, Wanted, compose

router = APIRouter(prefix="/v2", tags=["inference protocol"])

HEADER_LENGTH = "Inference-Header-Content-Length"
_INPUTS = (
    ("indptr", "INT64", "row boundaries, cells + 1"),
    ("indices", "INT32", "gene of each value, from 0"),
    ("data", "FP32", "raw counts"),
    ("genes", "BYTES", "symbols or Ensembl ids of the columns"),
    ("obs_names", "BYTES", "optional"),
    ("drugs", "BYTES", "optional, for ic50"),
    ("impute_genes", "BYTES", "optional, for imputed"),
)
_WHERE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such model."},
    503: {"model": Problem, "description": "Not now; `error` says why."},
}


@router.get("", operation_id="v2_server")
async def server(request: Request) -> dict[str, Any]:
    """What this server is."""
    return {"name": "scpalm", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", operation_id="v2_live", responses={503: _WHERE[503]})
async def server_live(service: ServiceDep) -> dict[str, bool]:
    """As /health/live."""
    await live(service)
    return {"live": True}


@router.get("/health/ready", operation_id="v2_ready", responses={503: _WHERE[503]})
async def server_ready(service: ServiceDep) -> dict[str, bool]:
    """As /health/ready."""
    await ready(service)
    return {"ready": True}


@router.get("/models/{name}", operation_id="v2_model", responses=_WHERE)
@router.get("/models/{name}/versions/{version}", operation_id="v2_model_version", responses=_WHERE)
async def model(name: str, service: ServiceDep, version: str = "") -> dict[str, Any]:
    """The model's inputs and outputs."""
    served = service.model(name, version)
    info = served.info
    widths = {"embedding": info.embedding_width, "pathways": info.num_tokens, "cell_distance": 1}
    return {
        "name": served.bundle.name,
        "versions": [served.bundle.version],
        "platform": f"scpalm_{info.runtime}",
        "inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind, _ in _INPUTS],
        "outputs": [
            {
                "name": output,
                "datatype": "INT32" if output == "pathways" else "FP32",
                "shape": [-1, widths.get(output, -1)],
            }
            for output in OUTPUTS
        ],
    }


@router.get("/models/{name}/ready", operation_id="v2_model_ready", responses=_WHERE)
@router.get("/models/{name}/versions/{version}/ready", operation_id="v2_model_version_ready", responses=_WHERE)
async def model_ready(name: str, service: ServiceDep, version: str = "") -> dict[str, Any]:
    """Whether the model answers."""
    await ready(service)
    service.ready_model(name, version)
    return {"name": name, "ready": True}


_BODY = {
    "required": True,
    "description": "Inputs: " + "; ".join(f"`{name}` {kind}: {what}" for name, kind, what in _INPUTS)
    + f". Outputs: {', '.join(f'`{name}`' for name in OUTPUTS)}; default `embedding`. "
    "`parameters.scale` of `imputed`: log or counts. With binary tensors behind the JSON, its length in "
    f"`{HEADER_LENGTH}`.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "inputs": {"type": "array", "items": {"type": "object"}},
                    "outputs": {"type": "array", "items": {"type": "object"}},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}  # fmt: skip


@router.post(
    "/models/{name}/infer",
    operation_id="v2_infer",
    response_class=Response,
    openapi_extra={"requestBody": _BODY},
    responses={200: {"description": "`outputs`, in the order asked for."}, **PROBLEMS},
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    operation_id="v2_infer_version",
    response_class=Response,
    openapi_extra={"requestBody": _BODY},
    responses={200: {"description": "`outputs`, in the order asked for."}, **PROBLEMS},
)
async def infer(
    name: str, request: Request, service: ServiceDep, declared: Input = "auto", version: str = ""
) -> Response:
    """Cells as tensors in, results as tensors out; the same numbers as the other routes give."""
    text = request.headers.get(HEADER_LENGTH)
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidParameterError(f"'{text[:50]}' is no length.", field=HEADER_LENGTH)

    def plan(model: Model, opened: Opened, media_type: str) -> tuple[Task, ...]:
        asked = Wanted.of(opened.extras).asked(opened.extras)
        return asked.tasks(model.bundle, model.info, None, {}, opened.num_cells)

    async def present(answer: Answer, opened: Opened) -> Response:
        body, length = await asyncio.to_thread(compose, answer, Wanted.of(opened.extras))
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={HEADER_LENGTH: str(length)}, media_type="application/octet-stream")

    options = Options(
        plan,
        None,
        declared,
        EXTRAS,
        name,
        version,
        reads=MEDIA_TYPE,
        header_bytes=None if text is None else int(text),
        present=present,
    )
    return await answer_cells(request, service, options)
