"""What a request asks for: built once from a query, form, JSON body or command line, then passed on unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_origin

from pydantic import ValidationError

from scpalm.model.errors import ParameterError
from scpalm.model.genes.declared import Declaration, Declared
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import AnyTask, BoundTask, OutputSpec, TaskContext, TaskOptions


@dataclass(frozen=True)
class RequestSpec:
    """Tasks and their options. Frozen and JSON-serialisable, so that it can be stored with a job.

    Attributes:
        tasks: names of the tasks, the main one first.
        options: JSON values by option name, for all tasks.
        layer: which matrix to read: ``X``, ``raw``, the name of a layer, or None for the one that holds the counts.
        input: what its values are.
        total: what a whole cell sums to before the logarithm, for selections of genes; None if that is not said.
        model: name of the model, or None for the default.
        version: version of the model, or "" for any.
        format: media type of the response.

    Example:
        >>> RequestSpec(("impute",), {"genes": ["CD3D", "LYZ"]}, layer="counts")
    """

    tasks: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    input: Declared = "auto"
    total: float | None = None
    model: str | None = None
    version: str = ""
    format: str = ""

    def __post_init__(self) -> None:
        # JSON has lists only. Convert now, so that a spec read back from storage equals the original.
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        object.__setattr__(self, "options", options)

    @property
    def declaration(self) -> Declaration:
        """What the user says about the values."""
        return Declaration(self.input, self.total)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the request members that the tasks read in addition to cells."""
        kinds = [task.members for task in self.kinds() if task.members is not None]
        return tuple(name for kind in kinds for name in kind.model_fields)

    def kinds(self) -> tuple[AnyTask, ...]:
        """The tasks, without duplicates. Raises ParameterError for an unknown task or a forbidden combination."""
        known = tasks()
        names = tuple(dict.fromkeys(self.tasks))
        for name in names:
            if name not in known:
                raise ParameterError(f"There is no task '{name[:50]}'. Choose from {', '.join(known)}.", field="also")
            if known[name].alone and len(names) > 1:
                raise ParameterError(
                    f"'{name}' cannot be combined with other tasks: it runs the network on a panel of genes. "
                    f"Send POST /{name}, and request the other tasks separately.",
                    field="also",
                )
        return tuple(known[name] for name in names)

    def options_of(self, task: AnyTask) -> TaskOptions:
        """The options of one task. Raises ParameterError."""
        given = {name: self.options[name] for name in task.options.model_fields if name in self.options}
        try:
            return task.options(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or task.name
            raise ParameterError(f"'{name}': {first['msg']}.", field=name) from error

    def check_options(self) -> None:
        """Check names and types of the options; `bind` resolves genes and drugs. Raises ParameterError."""
        for task in self.kinds():
            self.options_of(task)

    @property
    def quick(self) -> bool:
        """Whether `bind` is fast enough to run on an event loop."""
        return all(task.binds_quickly for task in self.kinds())

    def bind(self, context: TaskContext) -> tuple[BoundTask, ...]:
        """The tasks, ready to run. Raises ParameterError, InputError or MissingPartError."""
        return tuple(task.bind(self.options_of(task), context) for task in self.kinds())

    def with_form_fields(self, fields: Mapping[str, str]) -> RequestSpec:
        """A copy with the options of a form added.

        A list has one item per line and extends the list that is already there. Unknown fields are ignored. Raises
        ParameterError for a field that cannot be sent as text.
        """
        known = {name: option for task in self.kinds() for name, option in task.options.model_fields.items()}
        options = dict(self.options)
        for name, text in fields.items():
            if name not in known:
                if name in self.members:
                    raise ParameterError(
                        f"'{name}' cannot be a form field. Send it as JSON, or in obsm of the file.", field=name
                    )
                continue
            if get_origin(known[name].annotation) is tuple:
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                options[name] = [*options.get(name, ()), *lines]
            else:
                options[name] = text.strip()
        return replace(self, options=options)

    def as_dict(self) -> dict[str, Any]:
        """The spec as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RequestSpec:
        """Restore a spec from `as_dict`. Raises TypeError for an unknown member."""
        return cls(**{**stored, "tasks": tuple(stored["tasks"])})


def outputs_of(bound: Sequence[BoundTask]) -> tuple[OutputSpec, ...]:
    """The outputs of several tasks, in order."""
    return tuple(output for task in bound for output in task.outputs)


def metadata_of(bound: Sequence[BoundTask]) -> dict[str, object]:
    """Metadata of several tasks, merged."""
    return {name: what for task in bound for name, what in task.metadata().items()}
