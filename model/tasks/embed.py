"""The embedding of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from pydantic import Field

from scpalm.model.adapter.adapter import OpenAdapter, adapter_of
from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import BoundTask, OutputSpec, Recipe, RecipeError, Task, TaskContext, TaskOptions, Values

Output = Literal["embedding", "h_C", "f"]
KEYS: dict[Output, str] = {"embedding": "X_scpalm", "h_C": "X_scpalm_h_C", "f": "X_scpalm_f"}


class EmbedOptions(TaskOptions):
    """Which vector to return."""

    output: Output = Field(
        default="embedding",
        description="`embedding`: f and the view head side by side, what measures best. `h_C`: the cell token of the "
        "paper, computed from the pathway tokens. `f`: the linear read-out alone. A model that was adapted to a user's "
        "cells has its own `embedding`.",
    )


class Embed(BoundTask):
    """One of the vectors of a cell, float32."""

    name = "embed"

    def __init__(self, info: SessionInfo, output: Output = "embedding", adapter: OpenAdapter | None = None) -> None:
        self._output = output
        self._adapter = adapter if output == "embedding" else None
        self.needs_tokens = output == "h_C"
        width = info.embedding_width if self._adapter is None else self._adapter.adapter.width
        widths = {"embedding": width, "h_C": info.cell_width, "f": info.num_components}
        self.outputs = (OutputSpec("embed", KEYS[output], widths[output]),)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        if self._output == "h_C":
            return {"embed": encoded.h_C}
        if self._adapter is not None:
            return {"embed": self._adapter.apply(encoded.rows, encoded.embedding)}
        return {"embed": encoded.f if self._output == "f" else encoded.embedding}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        return Recipe(first, {"output": self._output})


@register
class EmbedTask(Task[EmbedOptions]):
    """One vector per cell."""

    name = "embed"
    options = EmbedOptions
    summary = "One vector per cell, in input order. A cell's vector does not depend on the other cells."
    result = "One vector per cell; in h5ad, `obsm['X_scpalm']` (`X_scpalm_h_C`, `X_scpalm_f` for the other outputs)."
    tensors: ClassVar[Mapping[str, str]] = {"embed": "embedding"}

    def bind(self, options: EmbedOptions, context: TaskContext) -> BoundTask:
        return Embed(context.info, options.output, adapter_of(context.bundle))

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        output = recipe.settings.get("output", "embedding")
        if output not in get_args(Output):
            raise RecipeError(f"unknown output {output!r} of embed")
        return Embed(info, output, adapter_of(bundle))
