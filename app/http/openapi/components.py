"""Schemas that routes refer to by name, so that the document has each of them once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_TEMPLATE = "#/components/schemas/{model}"
# Bodies are described as they may be sent, answers as they are written. By name, because the document has one of each.
_models: dict[str, tuple[type[BaseModel], Literal["validation", "serialization"]]] = {}

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of a body. Raises ValueError if another model has the name."""
    return _reference(model, "validation")


def answer_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of an answer. Raises ValueError if another model has the name."""
    return _reference(model, "serialization")


def json_answer(model: type[BaseModel], description: str) -> dict[str, Any]:
    """A response that the route encodes itself: JSON of this model, which nothing validates."""
    return {"description": description, "content": {"application/json": {"schema": answer_schema(model)}}}


def _reference(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> dict[str, Any]:
    if _models.setdefault(model.__name__, (model, mode)) != (model, mode):
        raise ValueError(f"Two schemas have the name '{model.__name__}'.")
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def schemas() -> dict[str, Any]:
    """The schemas of all models that routes refer to, and of the models inside these, by name."""
    _, found = models_json_schema(list(_models.values()), ref_template=_TEMPLATE)
    definitions: dict[str, Any] = found.get("$defs", {})
    return definitions
