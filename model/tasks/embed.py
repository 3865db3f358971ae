"""The embedding of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import BoundTask, OutputSpec, Recipe, Task, TaskContext, TaskOptions, Values

KEY = "X_scpalm"


class Embed(BoundTask):
    """``h_C [B, D]`` float32."""

    name = "embed"

    def __init__(self, info: SessionInfo) -> None:
        self.outputs = (OutputSpec("embed", KEY, info.embedding_width),)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        return {"embed": encoded.embedding}


@register
class EmbedTask(Task[TaskOptions]):
    """One vector per cell."""

    name = "embed"
    options = TaskOptions
    summary = "One vector h_C per cell, in input order. A cell's vector does not depend on the other cells."
    result = "One vector per cell; in h5ad, `obsm['X_scpalm']`."
    tensors: ClassVar[Mapping[str, str]] = {"embed": "embedding"}

    def bind(self, options: TaskOptions, context: TaskContext) -> BoundTask:
        return Embed(context.info)

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        return Embed(info)
