"""Query parameters: those of the task routes, generated from the options of the tasks, and refusal of all others."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from pydantic import Field, create_model
from starlette.datastructures import QueryParams

from scpalm.app.errors import InvalidParameterError
from scpalm.model.errors import did_you_mean
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import CommonOptions
from scpalm.model.tasks.registry import combinable, tasks
from scpalm.model.tasks.task import AnyTask, Names


@cache
def query_of(name: str) -> type[CommonOptions]:
    """The query parameters of a task's route, including those of the tasks it can be combined with.

    For the API documentation and for types; `spec_of` reads the query.
    """
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
        fields |= {name: (option.annotation, option) for name, option in _fields(other).items()}
    return create_model(f"{name.capitalize()}Query", __base__=CommonOptions, **fields)


def _fields(task: AnyTask) -> dict[str, Any]:
    return dict(task.options.model_fields)


def spec_of(name: str, query: QueryParams) -> RequestSpec:
    """The spec of a request to a task's route. Raises ParameterError."""
    return RequestSpec((name,)).with_options({key: query.getlist(key) for key in query}, "query parameter")


async def refuse_unknown_query(request: Request) -> None:
    """A dependency of routes without cells: every query parameter must be known, and sent once.

    Raises InvalidParameterError.
    """
    known = _parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            choices = f"Choose from {', '.join(sorted(known))}." if known else "This route has none."
            detail = f"There is no query parameter '{name[:50]}'. {did_you_mean(name, known)}{choices}"
            raise InvalidParameterError(detail, field=name[:50])
        if len(values := request.query_params.getlist(name)) > 1:
            raise InvalidParameterError(f"'{name}' is given {len(values)} times. Send it once.", field=name)
        if "\0" in values[0]:
            raise InvalidParameterError(f"'{name}' contains a NUL character. Remove it.", field=name)


def _parameters(dependant: Dependant) -> set[str]:
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*(_parameters(inner) for inner in dependant.dependencies))
