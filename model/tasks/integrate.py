"""An embedding without batches, such as donors, technologies or laboratories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field

from scpalm.model.bundle import Bundle
from scpalm.model.errors import MissingPartError, ParameterError
from scpalm.model.integration.integrate import WIDTH, IntegrationReport, can_integrate, check_batches, integrate
from scpalm.model.io.labels import Categories
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.answer import TaskAnswer
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import BoundTask, Flag, OutputSpec, Recipe, Task, TaskContext, TaskOptions, Values


def _text(value: object) -> object:
    return "" if value is None else value


class IntegrateOptions(TaskOptions):
    """Where the batches are."""

    batch_key: Annotated[str, BeforeValidator(_text), Flag("batch-key")] = Field(
        "",
        description="Column of obs that says which batch a cell is from, such as a donor or a technology. Required.",
        max_length=200,
        examples=["batch"],
    )


class IntegratedBatch(BaseModel):
    """One batch."""

    name: str = Field(description="Value of the column.")
    cells: int
    shift: float = Field(description="Distance of its mean from the mean of all cells, in sd of the embedding.")
    overlap_before: float = Field(description="How well its cells mix with the others in the embedding.")
    overlap_after: float = Field(description="The same in the result.")


class IntegrationNote(BaseModel):
    """What was done."""

    batch_key: str
    method: str
    centred: bool = Field(description="Whether each batch was centred first.")
    batches: list[IntegratedBatch]


class IntegrateAnswer(TaskAnswer):
    """An embedding without batches."""

    example: ClassVar[Mapping[str, Any]] = {
        "shape": [2, 2],
        "values": [[0.6, 0.8], [-0.8, 0.6]],
        "integration": {
            "batch_key": "donor",
            "method": "each batch centred, 30 principal components, Harmony",
            "centred": True,
            "batches": [{"name": "a", "cells": 2, "shift": 0.16, "overlap_before": 0.92, "overlap_after": 1.0}],
        },
    }

    integration: IntegrationNote


class Integrate(BoundTask):
    """``[B, WIDTH]`` float32. All cells are needed, so `run` keeps the embedding and `conclude` does the work."""

    name = "integrate"
    needs_tokens = False
    concludes = True

    def __init__(self, info: SessionInfo, batch_key: str = "", batches: Categories | None = None) -> None:
        self._key, self._batches, self._num_components = batch_key, batches, info.num_components
        self._report: IntegrationReport | None = None
        self.outputs = (
            OutputSpec("integrate", "X_scpalm_integrated", WIDTH),
            OutputSpec("integrate_embedding", "X_scpalm_integrate_embedding", info.embedding_width, hidden=True),
        )

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        empty = np.zeros((len(encoded), WIDTH), np.float32)
        return {"integrate": empty, "integrate_embedding": encoded.embedding}

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        assert self._batches is not None
        embedding = values["integrate_embedding"].astype(np.float32, copy=False)
        found = integrate(embedding, self._num_components, self._batches)
        self._report = found.report
        return {"integrate": found.values}

    def metadata(self) -> dict[str, object]:
        if self._report is None:
            return {}
        described = {"batch_key": self._key, **self._report.as_dict()}
        return {"integration": described, "warnings": list(self._report.warnings)}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        return Recipe(first)


@register
class IntegrateTask(Task[IntegrateOptions]):
    """An embedding without batches."""

    name = "integrate"
    summary = (
        "The embedding without the differences between batches: each batch is centred where that makes them overlap, "
        "then Harmony. It depends on all cells of the request."
    )
    result = (
        "One vector per cell, in h5ad `obsm['X_scpalm_integrated']`; `integration` says what was done, and how far "
        "each batch was from the others before and after."
    )
    options = IntegrateOptions
    answer = IntegrateAnswer
    tensors: ClassVar[Mapping[str, str]] = {"integrate": "integrated"}

    def obs_columns(self, options: IntegrateOptions) -> tuple[str, ...]:
        return (options.batch_key,) if options.batch_key else ()

    def bind(self, options: IntegrateOptions, context: TaskContext) -> BoundTask:
        if not can_integrate():
            raise MissingPartError(
                "Integration needs harmonypy, which is not installed. Install it with: pip install 'scpalm[integrate]'"
            )
        if not options.batch_key:
            raise ParameterError(
                "'batch_key' is missing: name the column of obs that says which batch a cell is from.",
                field="batch_key",
            )
        if options.batch_key not in context.obs:
            raise ParameterError(
                f"The cells have no column '{options.batch_key}' in obs. Send an h5ad file with that column.",
                field="batch_key",
            )
        batches = context.obs[options.batch_key]
        check_batches(batches)
        return Integrate(context.info, options.batch_key, batches)

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        return Integrate(info)
