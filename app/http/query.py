"""Query parameters of the task routes, generated from the options of the tasks."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, Field, create_model

from scpalm.model.errors import ParameterError
from scpalm.model.genes.declared import Declared
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.registry import combinable, tasks
from scpalm.model.tasks.task import AnyTask, Names


class CellsQuery(BaseModel):
    """Query parameters of every route with cells."""

    model: str | None = Field(
        None,
        description="Name of a model listed by GET /models. Default: the model marked as default there.",
        max_length=200,
        examples=["mini"],
    )
    layer: str | None = Field(
        None,
        description="Matrix of an h5ad file to use: `X`, `raw` for raw.X, or the name of a layer. Default: the one "
        "that holds the counts.",
        max_length=200,
    )
    input: Declared = Field(
        "auto",
        description="What the values are: `counts` (fractions allowed), `linear` (normalised, no logarithm), or "
        "logarithms of `x + 1`: `log` (natural), `log2`, `log10`; also by name, such as `log2_tpm`. Default: detected, "
        "or refused if that is not certain.",
    )
    total: float | None = Field(
        None,
        description="What a whole cell sums to before the logarithm, such as 1e4 (CP10K) or 1e6 (CPM, TPM). Needed for "
        "normalised values of a selection of genes.",
        gt=0,
        le=1e12,
    )


@cache
def query_of(name: str) -> type[CellsQuery]:
    """The query parameters of a task's route, including those of the tasks it can be combined with."""
    task = tasks()[name]
    fields: dict[str, Any] = {}
    if not task.alone:
        others = ", ".join(f"`{other.name}`" for other in combinable())
        fields["also"] = (
            Names,
            Field(
                (),
                description=f"Further results from the same forward pass: {others}. Repeat it or separate with commas.",
                max_length=20,
                examples=[["pathways", "impute"]],
            ),
        )
    for other in [task] if task.alone else combinable():
        # Tasks validate their options. They are declared here for the API documentation and for type conversion.
        fields |= {name: (option.annotation, option) for name, option in _fields(other).items()}
    return create_model(f"{name.capitalize()}Query", __base__=CellsQuery, **fields)


def _fields(task: AnyTask) -> dict[str, Any]:
    return dict(task.options.model_fields)


def spec_of(name: str, query: CellsQuery) -> RequestSpec:
    """The spec of a request to a task's route. Raises ParameterError."""
    given = query.model_dump(exclude_unset=True)
    common = {field: given.pop(field) for field in ("model", "layer", "input", "total") if field in given}
    also = given.pop("also", ())
    for text in [*_texts(given), str(common.get("layer") or "")]:
        if "\0" in text:
            raise ParameterError("A name contains a NUL character. Remove it.", field="genes")
    return RequestSpec((name, *also), given, **common)


def _texts(given: dict[str, Any]) -> list[str]:
    return [text for value in given.values() if isinstance(value, tuple) for text in value]
