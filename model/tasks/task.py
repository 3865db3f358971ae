"""The interface of a task and of the outputs it declares. To add a task, start from a copy of `embed.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict

from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.bundle import Bundle
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.io.labels import Categories, LabelledBy
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.answer import TaskAnswer

Values = NDArray[np.float32] | NDArray[np.int32]
Placement = Literal["obsm", "layers", "obs"]


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One matrix that a task computes, ``[B, width]``.

    Attributes:
        name: name in responses. The first output of a task has the task's name.
        key: AnnData key of the values.
        width: number of columns.
        dtype: float32 or int32.
        columns: names of the columns, or None if they have none.
        placement: ``obsm``; ``layers`` if the values belong to the columns of the input; ``obs`` for one named column.
        var_columns: ``[num_vars]``, for ``layers``: the column of the values for each input column, -1 for none.
        categories: for int32 values that are positions in this list of texts, such as labels; -1 means none.
        hidden: whether it is only for `BoundTask.conclude`, and not part of the result.
    """

    name: str
    key: str
    width: int
    dtype: type[np.float32] | type[np.int32] = np.float32
    columns: Sequence[str] | None = None
    placement: Placement = "obsm"
    var_columns: NDArray[np.int64] | None = None
    categories: Sequence[str] | None = None
    hidden: bool = False

    def texts(self, values: Values) -> NDArray[np.object_]:
        """The categories of the values, "" for none. Only for outputs with categories."""
        assert self.categories is not None
        return np.array([*self.categories, ""], dtype=object)[values]

    def spread(self, values: Values) -> Values:
        """Values in the columns of the input ``[B, num_vars]``, NaN where there are none; unchanged for ``obsm``."""
        if self.var_columns is None:
            return values
        known = self.var_columns >= 0
        out = np.full((len(values), len(known)), np.nan, dtype=np.float32)
        out[:, known] = values[:, self.var_columns[known]]
        return out


@dataclass(frozen=True, eq=False)
class Recipe:
    """A bound task in the form sent to a worker: JSON and arrays, never code.

    Attributes:
        first: position in the request of the first row.
        settings: JSON values.
        arrays: arrays by name.
    """

    first: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """Name of the ``/v2`` input tensor for an option. Options without it are ``parameters`` there."""

    name: str


@dataclass(frozen=True)
class Flag:
    """Name of an option on the command line, if it differs from the field's name."""

    name: str


class TaskOptions(BaseModel):
    """Options of one task. Their fields become query parameters, JSON members and command-line options.

    All tasks share one set of option names: two tasks may not use a name for different things.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=TaskOptions)


def _split(value: object) -> object:
    """Split ``"A,B"`` or ``["A", "B,C"]`` into names; empty names are dropped."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    names: list[object] = []
    for text in texts:
        names += [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else [text]
    return tuple(names)


# A list of names. Repeating the option and separating names with commas are equivalent.
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


@dataclass(frozen=True, eq=False)
class TaskContext:
    """What a task may need when it is bound.

    Attributes:
        bundle: the model.
        info: sizes of its session.
        num_cells: B of the whole request.
        columns: ``[num_vars]`` vocabulary position of each input column (-1: unknown) if the results are added to the
            input file, else None.
        members: members of the body in addition to cells, as declared by ``Task.members``.
        obs: columns of the input's ``obs``, those that ``Task.obs_columns`` names. A column that does not exist is
            missing here.
        labelled: the cells of the labelled file that came with the request, embedded; None if there is no such file.
    """

    bundle: Bundle
    info: SessionInfo
    num_cells: int = 0
    columns: NDArray[np.int32] | None = None
    members: Mapping[str, object] = field(default_factory=dict)
    obs: Mapping[str, Categories] = field(default_factory=dict)
    labelled: LabelledCells | None = None


class BoundTask(ABC):
    """A task with its options and names resolved, ready to run on batches of rows.

    Attributes:
        name: name of the task.
        outputs: the outputs that `run` returns.
        needs_tokens: whether `run` reads h_C or the codes, and not only the embedding.
        concludes: whether `conclude` must be called.
        share_concluded: finished share of a running `conclude`, from 0 to 1.
    """

    name: str
    outputs: tuple[OutputSpec, ...]
    needs_tokens: bool = True
    concludes: bool = False
    share_concluded: float = 0.0

    def select_rows(self, prepared: Prepared) -> Rows:
        """The rows to pass to the network. Tasks that run together must select the same. Raises InputError."""
        return prepared.rows

    @abstractmethod
    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        """Compute the values ``[B, width]`` of each output, by name. Runs on the device's thread.

        ``first``: position in the request of the first cell.
        """

    def finish(self, values: Mapping[str, Values], prepared: Prepared) -> Mapping[str, Values]:
        """Last step, off the device: for anything that depends on the original cells, such as their totals."""
        return values

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        """Called once with the values of all cells: returns the outputs that depend on several cells, such as votes.

        It must give the same result when it is called again with its own result. Afterwards `outputs` may have
        categories that only the values of all cells could tell.
        """
        return {}

    def stop(self) -> None:  # noqa: B027 -- most tasks have nothing to stop
        """Make a slow `conclude` raise soon. Called from another thread, possibly before `conclude`."""

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        """Position of the first invalid row, or None. By default a row is valid if it is finite."""
        bad = np.zeros(len(next(iter(values.values()))), dtype=bool)
        for part in values.values():
            bad |= ~np.isfinite(part).all(axis=1)
        return int(bad.argmax()) if bad.any() else None

    def metadata(self) -> dict[str, object]:
        """Metadata about the values for the response, such as units; JSON."""
        return {}

    def recipe(self, first: int, num_rows: int) -> Recipe:
        """What a worker needs to compute rows ``first`` to ``first + num_rows``."""
        return Recipe(first)


class Task(ABC, Generic[Options]):
    """One kind of result. To add one, put a subclass with the `register` decorator in a new file in this folder.

    Attributes:
        name: name of the route, in ``?also=``, in metrics and on the command line.
        summary: one line for the documentation and ``--help``.
        result: description of the response, for the documentation.
        options: class of its options.
        tensors: ``/v2`` tensor name of each output.
        answer: class of the members of its JSON answer, for the API description.
        members: class of the body members it reads in addition to cells, or None.
        reads_labelled: whether a form may have a second file, ``reference``, with labelled cells.
        alone: whether it cannot be combined with other tasks, because it passes other rows to the network.
        binds_quickly: whether `bind` is fast enough to run on an event loop.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    result: ClassVar[str]
    options: type[Options]
    tensors: ClassVar[Mapping[str, str]]
    answer: ClassVar[type[TaskAnswer]] = TaskAnswer
    members: ClassVar[type[BaseModel] | None] = None
    reads_labelled: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    binds_quickly: ClassVar[bool] = True

    @abstractmethod
    def bind(self, options: Options, context: TaskContext) -> BoundTask:
        """Resolve names and check that the model supports the task.

        Raises ParameterError or InputError for a wrong option, MissingPartError if the bundle lacks a part.
        """

    def obs_columns(self, options: Options) -> tuple[str, ...]:
        """Columns of the input's ``obs`` that the task reads."""
        return ()

    def sum_by(self, options: Options) -> str:
        """Column of the input's ``obs``: the counts of each group of cells are summed first. "" for cells."""
        return ""

    def labelled_by(self, options: Options) -> LabelledBy | None:
        """How to read the labelled file, for tasks that have ``reads_labelled``."""
        return None

    @abstractmethod
    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        """Recreate a bound task from its recipe, in a worker. Raises RecipeError for an invalid recipe."""


class RecipeError(ValueError):
    """A recipe that does not fit this release or model. The text says why."""


AnyTask = Task[Any]


def option_tensors(task: AnyTask) -> dict[str, str]:
    """Options of a task that are ``/v2`` input tensors: tensor name by option name."""
    return {
        name: mark.name
        for name, option in task.options.model_fields.items()
        for mark in option.metadata
        if isinstance(mark, Tensor)
    }
