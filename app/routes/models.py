"""Which models are served, and their cards."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.errors import UnknownModelError
from app.problems import Problem
from app.routes import ServiceDep

router = APIRouter(tags=["models"])

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


class ModelList(BaseModel):
    """Every model served."""

    models: list[ServedModel]


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


@router.get("/models", operation_id="list_models", response_model=ModelList, responses=_NOT_READY)
async def list_models(service: ServiceDep) -> ModelList:
    """The models served here."""
    bundle, device = service.bundle, service.session.info.device
    return ModelList(models=[ServedModel(name=bundle.name, version=bundle.version, default=True, device=device)])


@router.get(
    "/models/{name}",
    operation_id="get_model",
    responses={
        200: {"model": ModelCard},
        404: {"model": Problem, "description": "No such model."},
        **_NOT_READY,
    },
)
async def get_model(name: str, service: ServiceDep) -> Response:
    """A model's card: training data, evaluation, sizes, and the checksum of every file."""
    bundle = service.bundle
    if name != bundle.name:
        raise UnknownModelError(f"There is no model '{name[:100]}'. Served here: {bundle.name}.", field="name")
    return Response(orjson.dumps(bundle.manifest), media_type="application/json")
