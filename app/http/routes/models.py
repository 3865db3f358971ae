"""Which models are served, and their cards."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from scpalm.app.errors import UnsupportedTaskError
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.problems import Problem

router = APIRouter(tags=["models"])

PATHWAYS_FILE = "pathways.json"
_NO_MODEL: dict[str, Any] = {"model": Problem, "description": "No such model."}

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "The model is being loaded."}}


class ServedModel(BaseModel):
    """One model in the list."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "mini", "version": "1.0.0", "default": True, "device": "cpu"}}
    )

    name: str
    version: str
    default: bool = Field(description="Whether requests that name no model get this one.")
    device: str = Field(description="cpu or cuda:n.")


class RefusedModel(BaseModel):
    """A folder of models whose content does not serve; what served from it before serves on."""

    folder: str
    reason: str


class ModelList(BaseModel):
    """Every model served."""

    models: list[ServedModel]
    refused: list[RefusedModel] | None = Field(
        None, description="What is in the folders of models and cannot be served, and why; left out where nothing is."
    )


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(extra="allow")

    sha256: str


class ModelCard(BaseModel):
    """The bundle's manifest, as it is: also what the model was trained on and how it was measured."""

    model_config = ConfigDict(extra="allow")

    format_version: int
    name: str
    version: str
    files: dict[str, FileEntry]


@router.get(
    "/models",
    operation_id="list_models",
    response_model=ModelList,
    response_model_exclude_none=True,
    responses=_NOT_READY,
)
async def list_models(service: ServiceDep) -> ModelList:
    """The models served here."""
    default = service.model()
    return ModelList(
        models=[
            ServedModel(
                name=model.bundle.name,
                version=model.bundle.version,
                default=model is default,
                device=model.info.device,
            )
            for model in service.models.all
        ],
        refused=[RefusedModel(folder=folder, reason=reason) for folder, reason in service.models.refused.items()]
        or None,
    )


@router.get(
    "/models/{name}",
    operation_id="get_model",
    responses={
        200: {"model": ModelCard},
        404: _NO_MODEL,
        **_NOT_READY,
    },
)
async def get_model(name: str, service: ServiceDep) -> Response:
    """A model's card: training data, evaluation, sizes, and the checksum of every file."""
    return Response(orjson.dumps(service.model(name).bundle.manifest), media_type="application/json")


class GeneList(BaseModel):
    """The genes that a model knows, in its own order."""

    ensembl_ids: list[str]
    symbols: list[str]


@router.get(
    "/models/{name}/genes",
    operation_id="get_model_genes",
    responses={200: {"model": GeneList}, 404: _NO_MODEL, **_NOT_READY},
)
async def get_genes(name: str, service: ServiceDep) -> Response:
    """The vocabulary. Aliases and previous symbols are recognised too, and not listed."""
    vocabulary = service.model(name).bundle.vocabulary
    body = {"ensembl_ids": vocabulary.ensembl_ids, "symbols": vocabulary.symbols}
    return Response(orjson.dumps(body), media_type="application/json")


@router.get(
    "/models/{name}/pathways",
    operation_id="get_model_pathways",
    responses={
        200: {"description": "Genes and terms of each code.", "content": {"application/json": {"schema": {}}}},
        404: {"model": Problem, "description": "No such model, or one whose codes have not been named."},
        **_NOT_READY,
    },
)
async def get_pathways(name: str, service: ServiceDep) -> Response:
    """What the pathway codes stand for: genes that they move, and Reactome terms among these."""
    bundle = service.model(name).bundle
    if PATHWAYS_FILE not in bundle.manifest["files"]:
        raise UnsupportedTaskError(
            f"The codes of {bundle.name} {bundle.version} have not been named: the bundle has no {PATHWAYS_FILE}."
        )
    content = await asyncio.to_thread(bundle.file(PATHWAYS_FILE).read_bytes)
    return Response(content, media_type="application/json")
