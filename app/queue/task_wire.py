"""Tasks as messages: what a worker in another process has to know to run them. JSON and arrays, never code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.app.tasks.ic50 import OPTIONAL, DrugResponse, Predictor, drug_response_of
from scpalm.app.tasks.task import Embed, Impute, Pathways, PathwayShares, Task
from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drug_table import Drug
from scpalm.model.sessions.session import SessionInfo

Arrays = dict[str, NDArray[Any]]
Recipe = dict[str, Any]


class UnknownTaskError(ValueError):
    """A recipe that this release cannot follow; the text says which."""


def pack_tasks(tasks: Sequence[Task], first: int, num_rows: int) -> tuple[list[Recipe], Arrays]:
    """Recipes, one a task, and the arrays they need for rows ``first`` and following of the request."""
    arrays: Arrays = {}
    return [_pack(task, arrays, first, num_rows) for task in tasks], arrays


def _pack(task: Task, arrays: Arrays, first: int, num_rows: int) -> Recipe:
    if isinstance(task, Impute):
        arrays["impute.genes"] = task.genes
        return {"task": "impute"}
    if isinstance(task, DrugResponse):
        predictor = task.predictor
        for name, values in predictor.optional.items():
            start = first - predictor.first
            arrays[f"ic50.{name}"] = values[start : start + num_rows]
        table = {id(drug): place for place, drug in enumerate(predictor.head.drugs.drugs)}
        # A known drug is a place in the bundle's own table, which both sides have.
        drugs = [table.get(id(drug), drug.smiles) for drug in predictor.drugs]
        return {"task": "ic50", "column": task.column, "drugs": drugs}
    for kind, name in _PLAIN.items():
        if type(task) is kind:
            return {"task": name}
    raise UnknownTaskError(f"{type(task).__name__} cannot travel; add it to {__name__}.")


_PLAIN: dict[type[Task], str] = {Embed: "embed", Pathways: "pathways", PathwayShares: "pathway_shares"}


class TaskReader:
    """Makes tasks of recipes, for one bundle."""

    def __init__(self, bundle: Bundle, info: SessionInfo) -> None:
        self._bundle = bundle
        self._simple: Mapping[str, Callable[[], Task]] = {
            "embed": lambda: Embed(info),
            "pathways": lambda: Pathways(info),
            "pathway_shares": lambda: PathwayShares(info),
        }
        self._info = info

    def read(self, recipes: Sequence[Recipe], arrays: Mapping[str, NDArray[Any]], first: int) -> tuple[Task, ...]:
        """The tasks. Raises UnknownTaskError, and what opening a part of the bundle raises."""
        predictor: Predictor | None = None
        tasks: list[Task] = []
        for recipe in recipes:
            name = recipe["task"]
            if name in self._simple:
                tasks.append(self._simple[name]())
            elif name == "impute":
                genes = arrays["impute.genes"].astype(np.int64)
                if len(genes) and not 0 <= int(genes.min()) <= int(genes.max()) < self._info.num_genes:
                    raise UnknownTaskError("A gene to impute is outside the vocabulary.")
                tasks.append(Impute(genes, ()))
            elif name == "ic50":
                predictor = predictor or self._predictor(recipe, arrays, first)
                tasks.append(DrugResponse(predictor, recipe["column"]))
            else:
                raise UnknownTaskError(f"There is no task '{str(name)[:50]}'.")
        return tuple(tasks)

    def _predictor(self, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], first: int) -> Predictor:
        head = drug_response_of(self._bundle)
        drugs = [head.drugs.drugs[drug] if isinstance(drug, int) else _new_drug(drug) for drug in recipe["drugs"]]
        optional = {name: arrays[f"ic50.{name}"] for name in OPTIONAL if f"ic50.{name}" in arrays}
        return Predictor(head, drugs, optional, first)


@lru_cache(4096)
def _new_drug(smiles: str) -> Drug:
    """A drug that the table lacks. Kept: its graph is read once, not for every batch."""
    return Drug(smiles, smiles)
