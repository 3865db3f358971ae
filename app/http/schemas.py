"""What bodies and answers look like, for /docs and /openapi.json. Bodies are read by codecs, not by these models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scpalm.app.codecs.registry import readable_types, writers
from scpalm.app.errors import (
    BadRequestError,
    BodyTimeoutError,
    DeadlineError,
    ForbiddenError,
    IdempotencyError,
    InferenceError,
    InvalidParameterError,
    MissingKeyError,
    NotAcceptableError,
    NotReadyError,
    QueueFullError,
    TooLargeError,
    UnsupportedMediaTypeError,
    UnsupportedTaskError,
)
from scpalm.app.http.problems import MEDIA_TYPE, Problem


class SparseCells(BaseModel):
    """Cells x genes as compressed sparse rows of raw counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "genes": [
                    "CD3D",
                    "CD3E",
                    "IL7R",
                    "NKG7",
                    "GNLY",
                    "MS4A1",
                    "CD79A",
                    "LYZ",
                    "CST3",
                    "FCN1",
                    "PPBP",
                    "B2M",
                ],
                "obs_names": ["T cell", "monocyte"],
                "indptr": [0, 4, 8],
                "indices": [0, 1, 2, 11, 7, 8, 9, 11],
                "data": [3, 2, 4, 31, 40, 18, 5, 22],
            }
        }
    )

    genes: list[str] = Field(description="HGNC symbols or Ensembl ids, one a column.")
    obs_names: list[str] | None = Field(None, description="Names of the cells; default: their numbers.")
    indptr: list[int] = Field(description="Row boundaries, cells + 1 of them, from 0.")
    indices: list[int] = Field(description="Column of each value.")
    data: list[float] = Field(description="Values: raw counts.")


class UploadForm(BaseModel):
    """A form with one file."""

    file: str = Field(description="The .h5ad file.", json_schema_extra={"format": "binary"})


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class CoverageReport(BaseModel):
    """How many of the request's genes the model knows."""

    genes_in: int = Field(description="Columns of the request.")
    genes_matched: int = Field(description="Columns that the model knows.")
    genes_of_model: int = Field(description="Different genes of the model among them.")
    by_symbol: int
    by_ensembl: int
    by_alias: int = Field(description="By an alias or a previous symbol.")
    unmatched: list[str] = Field(description="The first 20 names that were not found.")


class InputKind(BaseModel):
    """What the values were taken for."""

    detected: Literal["counts", "log"]
    why: str


class TaskValues(BaseModel):
    """Further results, asked for by `also`."""

    columns: list[str] | None = Field(None, description="What the columns stand for, where that has a name.")
    shape: list[int]
    values: list[list[float]]


class CellsAnswer(BaseModel):
    """One row a cell."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": {"name": "mini", "version": "1.0.0"},
                "obs_names": ["T cell", "monocyte"],
                "shape": [2, 2],
                "values": [[0.12, -0.53], [0.98, 0.07]],
                "coverage": {
                    "genes_in": 12,
                    "genes_matched": 12,
                    "genes_of_model": 12,
                    "by_symbol": 12,
                    "by_ensembl": 0,
                    "by_alias": 0,
                    "unmatched": [],
                },
                "input": {"detected": "counts", "why": "every value is a whole number"},
            }
        }
    )

    model: ModelName
    obs_names: list[str]
    columns: list[str] | None = Field(None, description="What the columns stand for: genes, codes.")
    shape: list[int] = Field(description="[cells, width].")
    values: list[list[float]] = Field(description="One row a cell.")
    embed: TaskValues | None = None
    pathways: TaskValues | None = None
    impute: TaskValues | None = None
    coverage: CoverageReport
    input: InputKind


_WHEN = {
    BadRequestError: "The bytes cannot be read: not HDF5, truncated, not JSON, a broken form.",
    BodyTimeoutError: "The body stopped coming.",
    NotAcceptableError: "`Accept` names no format that the answer can have.",
    TooLargeError: "Over the limit on bytes (after decompression too) or on cells.",
    UnsupportedMediaTypeError: "A body of an unknown media type.",
    InvalidParameterError: "Readable and wrong: negative, NaN, empty cell, indices out of range, too few genes known.",
    QueueFullError: "Too many cells are waiting, or sent by this key; `Retry-After` says for how long.",
    MissingKeyError: "No API key, or an unknown one, where the service asks for one.",
    ForbiddenError: "A key that may not use this route.",
    UnsupportedTaskError: "The model served lacks what this needs.",
    IdempotencyError: "The `Idempotency-Key` belongs to another request.",
    DeadlineError: "Not ready within `X-Request-Timeout` seconds.",
    InferenceError: "The model failed on these cells.",
    NotReadyError: "Starting or shutting down, or no room left for uploads.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    error.status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for error, text in _WHEN.items()
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}


# Any: FastAPI's own type for pieces of OpenAPI.
def cells_body(json: type[BaseModel], form: type[BaseModel]) -> dict[str, Any]:
    """The body of a route with cells, as OpenAPI."""
    content = {media_type: _BINARY for media_type in readable_types() if media_type != "application/json"}
    return {
        "required": True,
        "description": "Cells, as sparse JSON, as an h5ad file or as an Arrow IPC stream (columns `indices`, `data`, "
        "`obs_names`; `genes` as JSON in the schema's metadata). `Content-Encoding`: gzip or zstd.",
        "content": {
            "application/json": {"schema": json.model_json_schema()},
            "multipart/form-data": {"schema": form.model_json_schema()},
            **content,
        },
    }


def cells_responses(values: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route with cells, as OpenAPI. ``values``: what comes back."""
    return {
        200: {
            "model": CellsAnswer,
            "description": f"{values} By `Accept`: JSON, h5ad, Arrow or npy. Default: as the body.",
            "content": {media_type: _BINARY for media_type in writers() if media_type != "application/json"},
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
