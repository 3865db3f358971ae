"""/v2: the Open Inference Protocol, for clients of KServe and Triton."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from scpalm.app.codecs.inference import MEDIA_TYPE, option_inputs
from scpalm.app.codecs.registry import reader_for
from scpalm.app.http.body import HEADER_LENGTH
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.openapi.components import BINARY, answer_schema, body_schema
from scpalm.app.http.openapi.errors import CELL_ERRORS
from scpalm.app.http.openapi.headers import REQUEST_HEADERS, SERVER_TIMING
from scpalm.app.http.request import CellRequest, received, server_timing
from scpalm.app.http.routes.health import live, ready
from scpalm.app.v2.outputs import DEFAULT, RequestedOutputs, compose, outputs
from scpalm.app.v2.schemas import (
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from scpalm.model.genes.values.declared import Declared
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.annotate import ANNOTATION_TENSORS, ANNOTATION_TEXTS

_INTEGERS = ("pathways", "unknown")

router = APIRouter(prefix="/v2", tags=["inference protocol"])

_INPUTS = (
    ("indptr", "INT64", "CSR row pointers, number of cells + 1"),
    ("indices", "INT32", "column index of each value"),
    ("data", "FP32", "raw counts"),
    ("genes", "BYTES", "HGNC symbols or Ensembl IDs of the columns"),
    ("obs_names", "BYTES", "names of the cells, optional"),
    *((name, "BYTES", "option of a task, optional") for name in option_inputs()),
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"description": "No such model."},
    503: {"description": "The service is not ready; `error` says why."},
}


@router.get("", operation_id="v2_server", response_model=ServerMetadata)
async def server(request: Request) -> dict[str, Any]:
    """Get the name, version and protocol extensions of this server."""
    return {"name": "scpalm", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", operation_id="v2_live", response_model=ServerLive, responses={503: _RESPONSES[503]})
async def server_live(service: ServiceDep) -> dict[str, bool]:
    """The same check as /health/live."""
    await live(service)
    return {"live": True}


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", operation_id="v2_ready", response_model=ServerReady, responses={503: _RESPONSES[503]})
async def server_ready(service: ServiceDep) -> dict[str, bool]:
    """The same check as /health/ready."""
    await ready(service)
    return {"ready": True}


@router.get("/models/{name}", operation_id="v2_model", response_model=ModelMetadata, responses=_RESPONSES)
@router.get(
    "/models/{name}/versions/{version}",
    operation_id="v2_model_version",
    response_model=ModelMetadata,
    responses=_RESPONSES,
)
async def model(name: str, service: ServiceDep, version: str = "") -> dict[str, Any]:
    """Get the inputs and outputs of a model."""
    served = service.model(name, version)
    info = served.info
    widths = {"embedding": info.embedding_width, "pathways": info.num_tokens, "cell_distance": 1}
    widths |= dict.fromkeys(ANNOTATION_TENSORS, 1)
    return {
        "name": served.bundle.name,
        "versions": [served.bundle.version],
        "platform": f"scpalm_{info.runtime}",
        "inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind, _ in _INPUTS],
        "outputs": [
            {
                "name": output,
                "datatype": "BYTES" if output in ANNOTATION_TEXTS else "INT32" if output in _INTEGERS else "FP32",
                "shape": [-1, widths.get(output, -1)],
            }
            for output in outputs()
        ],
    }


@router.get("/models/{name}/ready", operation_id="v2_model_ready", response_model=ModelReady, responses=_RESPONSES)
@router.get(
    "/models/{name}/versions/{version}/ready",
    operation_id="v2_model_version_ready",
    response_model=ModelReady,
    responses=_RESPONSES,
)
async def model_ready(name: str, service: ServiceDep, version: str = "") -> dict[str, Any]:
    """Check that a model can accept requests."""
    await ready(service)
    service.ready_model(name, version)
    return {"name": name, "ready": True}


_BODY = {
    "required": True,
    "description": "Inputs: " + "; ".join(f"`{name}` {kind}: {what}" for name, kind, what in _INPUTS)
    + f". Outputs: {', '.join(f'`{name}`' for name in outputs())}; default `{DEFAULT}`. "
    "`parameters` sets further options of the tasks, such as `scale` for `imputed`. If binary tensors follow the JSON, "
    f"`{HEADER_LENGTH}` is the length of the JSON.",
    "content": {
        "application/json": {"schema": body_schema(InferenceRequest)},
        "application/octet-stream": BINARY,
    },
}  # fmt: skip
_HEADERS = [
    {
        "name": HEADER_LENGTH,
        "in": "header",
        "required": False,
        "description": "Length of the JSON if binary tensors follow it.",
        "schema": {"type": "integer", "minimum": 0},
    },
    *REQUEST_HEADERS,
]
_INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The requested `outputs`, in the order of the request. With binary tensors, these follow the "
        f"JSON, and `{HEADER_LENGTH}` is its length.",
        "content": {
            "application/json": {"schema": answer_schema(InferenceResponse)},
            "application/octet-stream": BINARY,
        },
        "headers": {
            HEADER_LENGTH: {"description": "Length of the JSON.", "schema": {"type": "integer"}},
            **SERVER_TIMING,
        },
    },
    **CELL_ERRORS,
}


@router.post(
    "/models/{name}/infer",
    operation_id="v2_infer",
    response_class=Response,
    openapi_extra={"requestBody": _BODY, "parameters": _HEADERS},
    responses=_INFERRED,
)
@router.post(
    "/models/{name}/versions/{version}/infer",
    operation_id="v2_infer_version",
    response_class=Response,
    openapi_extra={"requestBody": _BODY, "parameters": _HEADERS},
    responses=_INFERRED,
)
async def infer(
    name: str,
    request: Request,
    service: ServiceDep,
    declared: Annotated[
        Declared,
        Query(
            alias="input", description="Type of the values: raw counts, log1p-normalised values, or detected (auto)."
        ),
    ] = "auto",
    total: Annotated[float | None, Query(gt=0, description="What a whole cell sums to before the logarithm.")] = None,
    version: str = "",
) -> Response:
    """Compute outputs for cells given as tensors. The values are the same as from the task routes."""
    async with received(
        request,
        service,
        RequestSpec((), input=declared, total=total, model=name, version=version),
        reader_for(MEDIA_TYPE),
    ) as call:
        return await unless_disconnected(request, _answer(call))


async def _answer(call: CellRequest) -> Response:
    async with aclosing(call.model.parsers.parse(call.upload)) as parts:
        head = await call.open(parts)
        requested = RequestedOutputs.of(head.members)
        spec = requested.spec(call.upload.spec, head.members)
        # The spec now contains the options from the members.
        result = await call.compute(spec, replace(head, members={}), parts)
    encoding = time.monotonic()
    body, length = await asyncio.to_thread(compose, result, requested)
    call.trace(encoding, head.num_cells)
    timing = {"Server-Timing": server_timing(call.durations())}
    if length is None:
        return Response(body, headers=timing, media_type="application/json")
    return Response(body, headers={HEADER_LENGTH: str(length), **timing}, media_type="application/octet-stream")
