"""The models that are served: their cards, genes and pathway codes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from scpalm.app.errors import UnsupportedTaskError
from scpalm.app.http.dependencies import ServiceDep
from scpalm.app.http.openapi.components import answer_schema, json_answer

router = APIRouter(tags=["models"])

PATHWAYS_FILE = "pathways.json"
_NO_MODEL: dict[str, Any] = {"description": "No such model."}

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The model is being loaded."}}


class ServedModel(BaseModel):
    """A model that is being served."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "mini", "version": "1.0.0", "default": True, "device": "cpu"}}
    )

    name: str
    version: str
    default: bool = Field(description="Whether this model serves requests that name no model.")
    device: str = Field(description="Device of the model: cpu or cuda:n.")


class RefusedModel(BaseModel):
    """A model folder that could not be loaded. A model already loaded from it keeps serving."""

    folder: str
    reason: str


class ModelList(BaseModel):
    """All models that are being served."""

    models: list[ServedModel]
    refused: list[RefusedModel] | None = Field(
        None, description="Model folders that could not be loaded, with the reason. Absent if there are none."
    )


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(extra="allow")

    sha256: str
    bytes: int | None = Field(None, description="Size of the file.")


# A row of a table of results: data set, method, seed and metrics.
ResultRow = dict[str, str | float | bool | None]


class TrainingData(BaseModel):
    """A data set that the model was trained on."""

    model_config = ConfigDict(extra="allow")

    name: str
    accession: str | None = None
    licence: str | None = None
    cells: int | None = None


class ModelCard(BaseModel):
    """The manifest of the bundle, including training data and evaluation. Older bundles have fewer members."""

    model_config = ConfigDict(extra="allow")

    format_version: int
    name: str
    version: str
    created: str | None = None
    preset: str | None = None
    tasks: list[str] | None = Field(None, description="What the model can compute.")
    training_data: list[TrainingData] | None = None
    notes: str | None = None
    evaluation: list[ResultRow] | None = Field(None, description="Measured results.")
    files: dict[str, FileEntry]


@router.get(
    "/models",
    operation_id="list_models",
    response_model=ModelList,
    response_model_exclude_none=True,
    responses=_NOT_READY,
)
async def list_models(service: ServiceDep) -> ModelList:
    """List the models that are being served."""
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
        200: json_answer(ModelCard, "The card."),
        404: _NO_MODEL,
        **_NOT_READY,
    },
)
async def get_model(name: str, service: ServiceDep) -> Response:
    """Get the card of a model: training data, evaluation, sizes, and the checksum of every file."""
    return Response(orjson.dumps(service.model(name).bundle.manifest), media_type="application/json")


class GeneList(BaseModel):
    """The genes of a model, in the order of its vocabulary."""

    ensembl_ids: list[str]
    symbols: list[str]


class ReactomeTerm(BaseModel):
    """A term that is enriched among the genes of a code."""

    term: str
    adjusted_p: float
    genes: int = Field(description="Number of genes of the code that have the term.")


class PathwayCode(BaseModel):
    """A pathway code."""

    code: int
    genes: list[str] = Field(description="Genes that change most with the code.")
    hits: int = Field(description="Number of enriched terms.")
    terms: list[ReactomeTerm] = Field(description="The enriched terms, best first.")


class PathwayCodes(BaseModel):
    """The meaning of all codes."""

    sources: list[str] = Field(description="Collections of terms that were tested.")
    fdr: float = Field(description="Highest false discovery rate of a term.")
    tests: list[ResultRow] = Field(description="How many terms were found, and how many by chance.")
    codes: list[PathwayCode]


@router.get(
    "/models/{name}/genes",
    operation_id="get_model_genes",
    responses={200: json_answer(GeneList, "The genes."), 404: _NO_MODEL, **_NOT_READY},
)
async def get_genes(name: str, service: ServiceDep) -> Response:
    """List the genes of a model. Aliases and previous symbols are recognised too, but not listed."""
    vocabulary = service.model(name).bundle.vocabulary
    body = {"ensembl_ids": vocabulary.ensembl_ids, "symbols": vocabulary.symbols}
    return Response(orjson.dumps(body), media_type="application/json")


@router.get(
    "/models/{name}/pathways",
    operation_id="get_model_pathways",
    responses={
        200: {
            "description": "Genes and Reactome terms of each code.",
            "content": {"application/json": {"schema": answer_schema(PathwayCodes)}},
        },
        404: {"description": "No such model, or its codes have not been annotated."},
        **_NOT_READY,
    },
)
async def get_pathways(name: str, service: ServiceDep) -> Response:
    """Get the meaning of the pathway codes: the genes that they change, and the enriched Reactome terms."""
    bundle = service.model(name).bundle
    if PATHWAYS_FILE not in bundle.manifest["files"]:
        raise UnsupportedTaskError(
            f"The codes of {bundle.name} {bundle.version} have not been annotated: the bundle has no {PATHWAYS_FILE}."
        )
    content = await asyncio.to_thread(bundle.file(PATHWAYS_FILE).read_bytes)
    return Response(content, media_type="application/json")
