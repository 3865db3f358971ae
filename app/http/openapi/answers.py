"""The answers of routes with cells, for the API description. Codecs write them, and nothing validates them."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from scpalm.app.codecs.registry import writers
from scpalm.app.http.openapi.components import BINARY, answer_schema
from scpalm.app.http.openapi.errors import CELL_ERRORS, Responses
from scpalm.app.http.openapi.headers import CELL_ANSWER_HEADERS, JOB_ANSWER_HEADERS
from scpalm.model.tasks.answer import Matrix
from scpalm.model.tasks.registry import combinable, tasks
from scpalm.model.tasks.task import AnyTask


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


class CellNote(BaseModel):
    """How the cells were read, and by what."""

    model: ModelName
    release: str = Field(description="Release of the service.")
    checksum: str = Field(description="SHA-256 over the files of the model.")
    coverage: CoverageReport
    input: InputKind
    warnings: list[str] = Field(description="What you should know about how the cells were read.")


class CellsAnswer(CellNote):
    """The result, with one row per cell."""

    obs_names: list[str] = Field(description="Names of the cells, or of the groups.")
    shape: list[int] = Field(description="[cells, width] of `values`.")


_EXAMPLE: dict[str, Any] = {
    "model": {"name": "mini", "version": "2.0"},
    "release": "0.1.0",
    "checksum": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "obs_names": ["T cell", "monocyte"],
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


class JobAccepted(BaseModel):
    """A job that was created, or that the same request created before."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "2ceebb982b8541b4", "state": "queued"}})

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]


@cache
def _answer_model(task: AnyTask) -> type[BaseModel]:
    """`CellsAnswer` with the members of the task, and optional ones of the tasks that can be added with ``also``."""
    more: dict[str, Any] = {}
    for other in combinable() if not task.alone else ():
        if other.name == task.name:
            continue
        for name, field in other.answer.model_fields.items():
            if name not in ("columns", "values"):
                annotation: Any = field.annotation
                more[name] = annotation | None, Field(None, description=f"With `also={other.name}`.")
        if not other.answer.is_list:
            more[other.name] = Matrix | None, Field(None, description=f"With `also={other.name}`.")
    own: dict[str, Any] = {name: (field.annotation, field) for name, field in task.answer.model_fields.items()}
    return create_model(f"{task.name.capitalize()}Answer", __base__=CellsAnswer, __doc__=task.result, **more, **own)


def cell_responses(task: AnyTask) -> Responses:
    """The OpenAPI responses of a task's route."""
    json = {"schema": answer_schema(_answer_model(task)), "example": _EXAMPLE | dict(task.answer.example)}
    return {
        200: {
            "description": f"{task.result} `Accept` chooses JSON, h5ad, Arrow or npy. Default: the format of the body.",
            "content": _formats(json),
            "headers": CELL_ANSWER_HEADERS,
        },
        202: {
            "description": "A job was accepted, for requests with `Prefer: respond-async`.",
            "content": {"application/json": {"schema": answer_schema(JobAccepted)}},
            "headers": JOB_ANSWER_HEADERS,
        },
        **CELL_ERRORS,
    }


def result_formats() -> dict[str, Any]:
    """The content of a job's result: the answer of any task. Those with the most members of their own come first,
    because clients take the first one that fits."""
    known = sorted(tasks().values(), key=lambda task: -len(task.answer.model_fields))
    return _formats({"schema": {"anyOf": [answer_schema(_answer_model(task)) for task in known]}})


def _formats(json: dict[str, Any]) -> dict[str, Any]:
    others = [media_type for media_type in writers() if media_type != "application/json"]
    return {"application/json": json, **dict.fromkeys(others, BINARY)}
