"""Query parameters of the task routes, made from the tasks' own options."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, Field, create_model

from scpalm.model.errors import ParameterError
from scpalm.model.genes.normalize import Declared
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.registry import combinable, tasks
from scpalm.model.tasks.task import AnyTask, Names


class CellsQuery(BaseModel):
    """What every route with cells takes."""

    model: str | None = Field(
        None,
        description="Name of the model, as in GET /models. Default: the one marked as default there.",
        max_length=200,
        examples=["mini"],
    )
    layer: str | None = Field(
        None,
        description="Which matrix of an h5ad file: `raw` for raw.X, or the name of a layer. Default: X.",
        max_length=200,
    )
    input: Declared = Field(
        "auto", description="What the values are: raw counts, log1p-normalised, or detected (auto)."
    )


@cache
def query_of(name: str) -> type[CellsQuery]:
    """The query parameters of one task's route: those of the tasks it can be combined with as well."""
    task = tasks()[name]
    fields: dict[str, Any] = {}
    if not task.alone:
        others = ", ".join(f"`{other.name}`" for other in combinable())
        fields["also"] = (
            Names,
            Field(
                (),
                description=f"More results from the same pass of the network: {others}; repeat it, or use commas.",
                max_length=20,
                examples=[["pathways", "impute"]],
            ),
        )
    for other in [task] if task.alone else combinable():
        # Options are validated by their task; here they are declared, for the documentation and their types.
        fields |= {name: (option.annotation, option) for name, option in _fields(other).items()}
    return create_model(f"{name.capitalize()}Query", __base__=CellsQuery, **fields)


def _fields(task: AnyTask) -> dict[str, Any]:
    return dict(task.options.model_fields)


def spec_of(name: str, query: CellsQuery) -> RequestSpec:
    """The spec of a request to a task's route. Raises ParameterError."""
    given = query.model_dump(exclude_unset=True)
    common = {field: given.pop(field) for field in ("model", "layer", "input") if field in given}
    also = given.pop("also", ())
    for text in [*_texts(given), str(common.get("layer") or "")]:
        if "\0" in text:
            raise ParameterError("A name holds a NUL character. Remove it.", field="genes")
    return RequestSpec((name, *also), given, **common)


def _texts(given: dict[str, Any]) -> list[str]:
    return [text for value in given.values() if isinstance(value, tuple) for text in value]
