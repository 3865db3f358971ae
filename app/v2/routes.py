"""/v2: the Open Inference Protocol, for clients that speak it to any server (KServe, Triton's)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from scpalm.app.codecs.inference import MEDIA_TYPE, option_inputs
from scpalm.app.codecs.registry import reader_for
from scpalm.app.http.body import HEADER_LENGTH
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.problems import Problem
from scpalm.app.http.request import CellRequest, received
from scpalm.app.http.routes.health import live, ready
from scpalm.app.http.schemas import PROBLEMS
from scpalm.app.v2.outputs import DEFAULT, Wanted, compose, outputs
from scpalm.model.genes.normalize import Declared
from scpalm.model.spec import RequestSpec

router = APIRouter(prefix="/v2", tags=["inference protocol"])

_INPUTS = (
    ("indptr", "INT64", "row boundaries, cells + 1"),
    ("indices", "INT32", "gene of each value, from 0"),
    ("data", "FP32", "raw counts"),
    ("genes", "BYTES", "symbols or Ensembl ids of the columns"),
    ("obs_names", "BYTES", "optional"),
    *((name, "BYTES", "optional, names for a task") for name in option_inputs()),
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
            for output in outputs()
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
    + f". Outputs: {', '.join(f'`{name}`' for name in outputs())}; default `{DEFAULT}`. "
    "`parameters` has further options of the tasks, such as `scale` of `imputed`. With binary tensors behind the JSON, "
    "its length in "
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
    name: str,
    request: Request,
    service: ServiceDep,
    declared: Annotated[Declared, Query(alias="input", description="What the values are.")] = "auto",
    version: str = "",
) -> Response:
    """Cells as tensors in, results as tensors out; the same numbers as from the other routes."""
    async with received(
        request, service, RequestSpec((), input=declared, model=name, version=version), reader_for(MEDIA_TYPE)
    ) as call:
        return await unless_disconnected(request, _answer(call))


async def _answer(call: CellRequest) -> Response:
    async with aclosing(call.model.parsers.parse(call.upload)) as parts:
        head = await call.open(parts)
        wanted = Wanted.of(head.members)
        spec = wanted.spec(call.upload.spec, head.members)
        # What the members said is in the spec now.
        result = await call.compute(spec, replace(head, members={}), parts)
    body, length = await asyncio.to_thread(compose, result, wanted)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={HEADER_LENGTH: str(length)}, media_type="application/octet-stream")
