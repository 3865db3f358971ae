"""Schemas of bodies and responses for /docs and /openapi.json. Codecs, not these models, read the bodies."""

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
    StorageFullError,
    TooLargeError,
    UnsupportedMediaTypeError,
    UnsupportedTaskError,
)
from scpalm.app.http.problems import MEDIA_TYPE, Problem


class SparseCells(BaseModel):
    """Raw counts, cells x genes, as a compressed sparse row (CSR) matrix."""

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

    genes: list[str] = Field(description="HGNC symbol or Ensembl ID of each column.")
    obs_names: list[str] | None = Field(None, description="Names of the cells. Default: 0, 1, 2, ...")
    indptr: list[int] = Field(description="CSR row pointers: number of cells + 1 values, starting at 0.")
    indices: list[int] = Field(description="Column index of each value.")
    data: list[float] = Field(description="Values: raw counts.")
    shape: list[int] | None = Field(None, description="[cells, genes], checked where it is sent.")


class UploadForm(BaseModel):
    """A form with one file of cells."""

    file: str = Field(
        description="The file: .h5ad, 10x's .h5, .h5mu, JSON or Arrow.", json_schema_extra={"format": "binary"}
    )


class ModelName(BaseModel):
    """The model that computed the result."""

    name: str
    version: str


class CoverageReport(BaseModel):
    """How many genes of the request are in the model's vocabulary."""

    genes_in: int = Field(description="Number of columns in the request.")
    genes_matched: int = Field(description="Number of columns found in the model's vocabulary.")
    genes_of_model: int = Field(description="Number of distinct model genes among them.")
    by_symbol: int = Field(description="Columns matched by HGNC symbol.")
    by_ensembl: int = Field(description="Columns matched by Ensembl ID.")
    by_alias: int = Field(description="Columns matched by an alias or a previous symbol.")
    repaired: dict[str, int] = Field({}, description="Matched columns whose names were repaired, by kind of repair.")
    left_out: dict[str, int] = Field(
        {}, description="Columns that are no human genes, by reason. They are no part of the totals."
    )
    unmatched: list[str] = Field(description="The first 20 names that were not found.")
    counts_matched: float | None = Field(None, description="Share of the counts in matched columns (first cells).")


class InputKind(BaseModel):
    """How the values were interpreted."""

    model_config = ConfigDict(populate_by_name=True)

    detected: Literal["counts", "linear", "log"] = Field(
        description="Counts, normalised values without a logarithm, or logarithms of x + 1."
    )
    base: Literal["e", "2", "10"] | None = Field(None, description="Base of the logarithm.")
    total: float | None = Field(None, description="What a whole cell sums to before the logarithm, where known.")
    source: str = Field("X", alias="from", description="`X`, `raw` or the name of the layer that was read.")
    why: str = Field(description="Reason for this interpretation.")


class TaskValues(BaseModel):
    """A further result, requested with `also`."""

    columns: list[str] | None = Field(None, description="Names of the columns, if they have names.")
    shape: list[int] = Field(description="[cells, width].")
    values: list[list[float]] = Field(description="One row per cell.")


class CellsAnswer(BaseModel):
    """The result, with one row per cell."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": {"name": "mini", "version": "2.0"},
                "release": "0.1.0",
                "checksum": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
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
                    "repaired": {},
                    "left_out": {},
                    "unmatched": [],
                    "counts_matched": 1.0,
                },
                "input": {
                    "detected": "counts",
                    "base": None,
                    "total": None,
                    "from": "X",
                    "why": "every value is a whole number",
                },
                "warnings": [],
            }
        }
    )

    model: ModelName
    release: str = Field(description="Release of the service.")
    checksum: str = Field(description="SHA-256 over the files of the model.")
    obs_names: list[str]
    columns: list[str] | None = Field(None, description="Names of the columns, such as genes, if they have names.")
    shape: list[int] = Field(description="[cells, width].")
    values: list[list[float]] | list[list[str]] = Field(description="One row per cell; text for labels.")
    label: list[str] | None = Field(None, description="Of `annotate`, as are the next ones: the type of each cell.")
    second_label: list[str] | None = None
    nearest_label: list[str] | None = None
    cell_type: list[str] | None = None
    probability: list[float] | None = None
    distance: list[float] | None = None
    unknown: list[int] | None = None
    voted_label: list[str] | None = None
    vote_share: list[float] | None = None
    embed: TaskValues | None = None
    pathways: TaskValues | None = None
    impute: TaskValues | None = None
    coverage: CoverageReport
    input: InputKind
    warnings: list[str] = Field([], description="What you should know about how the cells were read.")


_DESCRIPTIONS = {
    BadRequestError: "The body cannot be read: not HDF5, not JSON, truncated, or a malformed form.",
    BodyTimeoutError: "The body did not arrive in time.",
    NotAcceptableError: "`Accept` names no format that the response can have.",
    TooLargeError: "The request exceeds the limit on bytes (before or after decompression) or on cells.",
    UnsupportedMediaTypeError: "The media type of the body is not supported.",
    InvalidParameterError: "The cells or parameters are invalid: negative values, NaN, empty cells, indices out of "
    "range, or too few genes in the model's vocabulary.",
    QueueFullError: "The queue is full, or the API key has reached its rate limit. See `Retry-After`.",
    MissingKeyError: "The API key is missing or unknown.",
    ForbiddenError: "The API key does not permit this route.",
    UnsupportedTaskError: "The model does not support this task.",
    IdempotencyError: "The `Idempotency-Key` was already used for a different request.",
    DeadlineError: "The response was not ready within `X-Request-Timeout` seconds.",
    InferenceError: "The model failed on these cells.",
    NotReadyError: "The service is starting or shutting down, cannot reach Redis, or a part of it was ended.",
    StorageFullError: "There is no room to store the body or its result. See `Retry-After`.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    error.status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for error, text in _DESCRIPTIONS.items()
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}


# FastAPI uses Any for fragments of OpenAPI.
def cells_body(json: type[BaseModel], form: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI request body of a route with cells."""
    content = {media_type: _BINARY for media_type in readable_types() if media_type != "application/json"}
    return {
        "required": True,
        "description": "Cells as JSON (sparse, or rows in `X`), an h5ad file, 10x's .h5, .h5mu, or an Arrow IPC stream "
        "or file (columns `indices`, `data`, `obs_names`; `genes` as JSON in the metadata). The first bytes decide. "
        "`Content-Encoding` may be gzip or zstd. Options may stand in the query, the form or the JSON.",
        "content": {
            "application/json": {"schema": json.model_json_schema()},
            "multipart/form-data": {"schema": form.model_json_schema()},
            **content,
        },
    }


def cells_responses(values: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route with cells. ``values`` describes the result."""
    return {
        200: {
            "model": CellsAnswer,
            "description": f"{values} `Accept` chooses JSON, h5ad, Arrow or npy. Default: the format of the body.",
            "content": {media_type: _BINARY for media_type in writers() if media_type != "application/json"},
            "headers": {
                "Scpalm-Note": {
                    "description": "How the cells were read, as JSON: `coverage`, `input` and `warnings`; for answers "
                    "that are not JSON.",
                    "schema": {"type": "string"},
                },
                "Server-Timing": {
                    "description": "Milliseconds for parse, queue, inference and encode; parse and inference overlap.",
                    "schema": {"type": "string"},
                },
            },
        },
        202: {
            "description": "A job was accepted, for requests with `Prefer: respond-async`. See `Location`.",
            "headers": {"Location": {"description": "`/jobs/{id}`.", "schema": {"type": "string"}}},
        },
        **PROBLEMS,
    }
