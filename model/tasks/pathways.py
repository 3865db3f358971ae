"""The pathway code of each of a cell's tokens, or the share of tokens that have each code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import BoundTask, OutputSpec, Recipe, Task, TaskContext, TaskOptions, Values


class PathwayOptions(TaskOptions):
    """Whether to return codes or their shares."""

    summary: bool = Field(
        default=False, description="Return the share of the cell's tokens that have each code, not one code per token."
    )


class Pathways(BoundTask):
    """Code index of each token ``[B, N]`` int32."""

    name = "pathways"

    def __init__(self, info: SessionInfo) -> None:
        self.outputs = (OutputSpec("pathways", "X_scpalm_pathways", info.num_tokens, np.int32),)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        return {"pathways": encoded.codes}


class PathwayShares(BoundTask):
    """Share of a cell's tokens that have each code, ``[B, K]`` float32; a row sums to 1."""

    name = "pathways"

    def __init__(self, info: SessionInfo) -> None:
        self._num_codes = info.num_codes
        codes = [str(code) for code in range(info.num_codes)]
        self.outputs = (OutputSpec("pathways", "X_scpalm_pathway_shares", info.num_codes, columns=codes),)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        B, N, K = len(encoded), encoded.codes.shape[1], self._num_codes
        cell = np.arange(B)[:, None] * K  # [B, 1]
        counts = np.bincount((encoded.codes + cell).ravel(), minlength=B * K)  # [B * K]
        return {"pathways": (counts.reshape(B, K) / N).astype(np.float32)}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        return Recipe(first, {"summary": True})


@register
class PathwayTask(Task[PathwayOptions]):
    """Pathway tokens."""

    name = "pathways"
    summary = "The pathway code of each of a cell's tokens; with `summary`, the share of tokens that have each code."
    result = "One code index per cell and token; in h5ad, `obsm['X_scpalm_pathways']`. With `summary`, shares of codes."
    options = PathwayOptions
    tensors: ClassVar[Mapping[str, str]] = {"pathways": "pathways"}

    def bind(self, options: PathwayOptions, context: TaskContext) -> BoundTask:
        return PathwayShares(context.info) if options.summary else Pathways(context.info)

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        return PathwayShares(info) if recipe.settings.get("summary") else Pathways(info)
