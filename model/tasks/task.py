"""The contract of a task, and the outputs it declares. Copy `embed.py` to start a new one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict

from scpalm.model.bundle import Bundle
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session, SessionInfo

Values = NDArray[np.float32] | NDArray[np.int32]
Placement = Literal["obsm", "layers"]


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One matrix that a task computes, ``[B, width]``.

    Attributes:
        name: in answers; the output that carries the task's own name comes first.
        key: where AnnData keeps the values. placement: ``obsm``, or ``layers`` for values of the user's own columns.
        width: number of columns. dtype: float32 or int32.
        columns: names of the columns, None where they have none.
        var_columns: ``[num_vars]``, for ``layers``: which column of the values each of the user's columns gets, -1 for
            none.
    """

    name: str
    key: str
    width: int
    dtype: type[np.float32] | type[np.int32] = np.float32
    columns: Sequence[str] | None = None
    placement: Placement = "obsm"
    var_columns: NDArray[np.int64] | None = None

    def spread(self, values: Values) -> Values:
        """``[B, num_vars]`` values in the user's own columns, NaN where there are none; ``obsm``: the values."""
        if self.var_columns is None:
            return values
        known = self.var_columns >= 0
        out = np.full((len(values), len(known)), np.nan, dtype=np.float32)
        out[:, known] = values[:, self.var_columns[known]]
        return out


@dataclass(frozen=True, eq=False)
class Recipe:
    """A bound task on its way to a worker: JSON and arrays, never code.

    Attributes:
        first: position of the first row in the request. settings: JSON. arrays: by name.
    """

    first: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """What an option, or an output, is called under ``/v2``. Options without it become ``parameters``."""

    name: str


@dataclass(frozen=True)
class Flag:
    """What an option is called on the command line, where that is not its own name."""

    name: str


class TaskOptions(BaseModel):
    """Options of one task. Their fields become query parameters, JSON members and command-line options.

    Option names are shared by all tasks: two tasks may not use one name for different things.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=TaskOptions)


def _split(value: object) -> object:
    """``"A,B"`` and ``["A", "B,C"]`` alike become names; empty ones are dropped."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    names: list[object] = []
    for text in texts:
        names += [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else [text]
    return tuple(names)


# A list of names: repeats and commas mean the same.
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


@dataclass(frozen=True, eq=False)
class TaskContext:
    """What a task may need to know before it runs.

    Attributes:
        bundle, info: the model and the sizes of its session. num_cells: B of the whole request.
        columns: ``[num_vars]`` vocabulary position of each of the user's columns (-1: unknown), when the results go
            back into the user's own file; None otherwise.
        members: what the body holds in addition to its cells, of the names in ``Task.members``.
    """

    bundle: Bundle
    info: SessionInfo
    num_cells: int = 0
    columns: NDArray[np.int32] | None = None
    members: Mapping[str, object] = field(default_factory=dict)


class BoundTask(ABC):
    """A task with its options and names resolved: ready to run on batches of rows.

    Attributes:
        name: of the task. outputs: what `run` returns, by name.
    """

    name: str
    outputs: tuple[OutputSpec, ...]

    def select_rows(self, prepared: Prepared) -> Rows:
        """The rows that the network reads. Tasks that run together must agree. Raises InputError."""
        return prepared.rows

    @abstractmethod
    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        """Values ``[B, width]`` by output; ``first`` is the position of the first cell in the request.

        Runs on the device's thread.
        """

    def finish(self, values: Mapping[str, Values], prepared: Prepared) -> Mapping[str, Values]:
        """A last step off the device, for what depends on the cells as they came in."""
        return values

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        """Position of the first row that cannot be sent, None when all can. Values must be finite."""
        bad = np.zeros(len(next(iter(values.values()))), dtype=bool)
        for part in values.values():
            bad |= ~np.isfinite(part).all(axis=1)
        return int(bad.argmax()) if bad.any() else None

    def metadata(self) -> dict[str, object]:
        """What the user should know about the values; JSON."""
        return {}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        """What a worker in another process needs to run rows ``first`` to ``first + num_rows``."""
        return Recipe(first)


class Task(ABC, Generic[Options]):
    """One kind of result. A subclass with the `register` decorator, in its own file in this folder, is all it takes.

    Attributes:
        name: of the route, in ``?also=``, metrics and the command line.
        summary: one line, for the documentation and ``--help``. result: what comes back, for the documentation.
        options: the class of its options. tensors: names of its outputs, and what they are called under ``/v2``.
        members: class of what it reads from a body in addition to cells; None for nothing.
        alone: whether it needs a pass with its own rows, so that it cannot be combined with other tasks.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    result: ClassVar[str]
    options: type[Options]
    tensors: ClassVar[Mapping[str, str]]
    members: ClassVar[type[BaseModel] | None] = None
    alone: ClassVar[bool] = False

    def quick(self, options: Options) -> bool:
        """Whether `bind` looks nothing up, so that it may run on an event loop."""
        return True

    @abstractmethod
    def bind(self, options: Options, context: TaskContext) -> BoundTask:
        """Resolve names and check that the model can do it.

        Raises ParameterError or InputError for a wrong option, MissingPartError where the bundle lacks a part.
        """

    @abstractmethod
    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        """The bound task from `BoundTask.recipe`, in a worker. Raises RecipeError for a recipe that does not fit."""


class RecipeError(ValueError):
    """A recipe that this release or model cannot follow. The text says why."""


AnyTask = Task[Any]


def option_tensors(task: AnyTask) -> dict[str, str]:
    """Options of a task that are inputs under ``/v2``, and what they are called there."""
    return {
        name: mark.name
        for name, option in task.options.model_fields.items()
        for mark in option.metadata
        if isinstance(mark, Tensor)
    }
