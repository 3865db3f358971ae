"""What a request asks for: built once from a query, form, JSON body or command line, then passed on unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypedDict, get_origin

from pydantic import ValidationError

from scpalm.model.errors import ParameterError, did_you_mean
from scpalm.model.genes.values.declared import Declaration, Declared
from scpalm.model.io.labels import LabelledBy
from scpalm.model.tasks.common_options import ALSO, CELL_MEMBERS, COMMON, LABELLED_FILE, CommonOptions
from scpalm.model.tasks.registry import combinable, tasks
from scpalm.model.tasks.task import AnyTask, BoundTask, OutputSpec, TaskContext, TaskOptions, Tensor

Place = Literal["query parameter", "form field", "JSON member"]


class ReadOptions(TypedDict, total=False):
    """How to read an AnnData.

    Attributes:
        layer: ``X``, ``raw`` or the name of a layer. Default: the one that holds the counts.
        input: what the values are, such as ``counts`` or ``log2_tpm``. Default: detected.
        total: what a whole cell sums to before the logarithm, such as 1e4.
    """

    layer: str | None
    input: Declared
    total: float | None


class AnnotateReadOptions(ReadOptions, total=False):
    """How to read an AnnData and a reference.

    Attributes:
        reference_layer: as ``layer``, for the reference.
    """

    reference_layer: str | None


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
        >>> RequestSpec(("impute",), {"genes": ["CD3D", "LYZ"]}, layer="counts").layer
        'counts'
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

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of the input's ``obs`` that the tasks read. Raises ParameterError for an invalid option."""
        return tuple(dict.fromkeys(name for task in self.kinds() for name in task.obs_columns(self.options_of(task))))

    @property
    def sum_by(self) -> str:
        """Column of ``obs`` by which counts are summed before the network; "" for none. Raises ParameterError."""
        return next((by for task in self.kinds() if (by := task.sum_by(self.options_of(task)))), "")

    @property
    def labelled_by(self) -> LabelledBy | None:
        """How to read the labelled file of the request; None if no task reads one. Raises ParameterError."""
        found = [task.labelled_by(self.options_of(task)) for task in self.kinds() if task.reads_labelled]
        return found[0] if found else None

    @property
    def files(self) -> tuple[str, ...]:
        """Fields of a form that may be files, in addition to the cells."""
        own = (*self.kinds(), *(() if any(task.alone for task in self.kinds()) else combinable()))
        return (LABELLED_FILE,) if any(task.reads_labelled for task in own) else ()

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
            raise _invalid(error, task.name) from error

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

    def option_names(self, place: Place = "query parameter") -> dict[str, str]:
        """Names that options may have in one place of a request; the option of each. Other names are unknown."""
        own = [(name, option) for task in self.kinds() for name, option in task.options.model_fields.items()]
        if not any(task.alone for task in self.kinds()):
            own += [pair for task in combinable() for pair in task.options.model_fields.items()]
        names = {name: name for name in COMMON}
        if not any(task.alone for task in self.kinds()):
            names[ALSO] = ALSO
        for name, option in own:
            tensors = [mark.name for mark in option.metadata if isinstance(mark, Tensor)]
            # In JSON, `genes` are the columns of the cells.
            names[tensors[0] if place == "JSON member" and name in CELL_MEMBERS and tensors else name] = name
        return names

    def check_name(self, name: str, place: Place) -> None:
        """Raise ParameterError for a name that no option has in this place of a request."""
        if name not in (known := self.option_names(place)):
            raise self._unknown(name, place, known)

    def with_options(self, given: Mapping[str, object], place: Place) -> RequestSpec:
        """A copy with the options added that one place of the request has.

        A list extends the one that is there; it may be text with commas, or one item a line. Anything else may be sent
        once. Raises ParameterError for an unknown name, a NUL character, and a value that differs from another place's.
        """
        also = [str(name) for name in _names(given.get(ALSO, ()), ALSO)]
        spec = replace(self, tasks=(*self.tasks, *(name for name in also if name not in self.tasks)))
        known = spec.option_names(place)
        fields = {name: option for task in tasks().values() for name, option in task.options.model_fields.items()}
        common: dict[str, Any] = {}
        options = dict(self.options)
        for name, value in given.items():
            _refuse_nul(name, value)
            if name not in known:
                raise self._unknown(name, place, known)
            option = known[name]
            if option in COMMON:
                common[option] = _once(name, value, getattr(self, option), CommonOptions.model_fields[option].default)
            elif option != ALSO and get_origin(fields[option].annotation) is tuple:
                options[option] = [*options.get(option, ()), *_names(value, name)]
            elif option != ALSO:
                options[option] = _once(name, value, options.get(option), None)
        try:
            checked = CommonOptions(**common).model_dump(include=set(common))
        except ValidationError as error:
            raise _invalid(error, "input") from error
        return replace(spec, options=options, **checked)

    def _unknown(self, name: str, place: Place, known: Mapping[str, str]) -> ParameterError:
        if name in self.members and place == "form field":
            return ParameterError(
                f"'{name}' cannot be a form field. Send it as JSON, or in obsm of the file.", field=name
            )
        choices = f"{did_you_mean(name, known)}Choose from {', '.join(sorted(known))}."
        return ParameterError(f"There is no {place} '{name[:50]}'. {choices}", field=name[:50])

    def with_body_options(self, members: Mapping[str, object]) -> RequestSpec:
        """A copy with the options among the members of a JSON body. Raises ParameterError."""
        names = self.members
        return self.with_options({name: value for name, value in members.items() if name not in names}, "JSON member")

    def refuse_unread(self) -> None:
        """Raise ParameterError for an option of a task that is not requested: nothing would read it."""
        read = {name for task in self.kinds() for name in task.options.model_fields}
        for name in self.options:
            if name not in read:
                owners = [task.name for task in tasks().values() if name in task.options.model_fields]
                raise ParameterError(
                    f"'{name}' is an option of {' and '.join(owners)}, which is not requested. "
                    f"Leave it out, or add also={owners[0]}.",
                    field=name,
                )

    def as_dict(self) -> dict[str, Any]:
        """The spec as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RequestSpec:
        """Restore a spec from `as_dict`. Raises TypeError for an unknown member."""
        return cls(**{**stored, "tasks": tuple(stored["tasks"])})


def _names(value: object, name: str) -> list[object]:
    """The items of a list, or the lines of a text. Raises ParameterError."""
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if not isinstance(value, list | tuple):
        raise ParameterError(f"'{name}' must be a list, or text with commas between the items.", field=name)
    items = [item for one in value for item in (_names(one, name) if isinstance(one, str) else [one])]
    if name == ALSO:
        return [part.strip() for item in items for part in str(item).split(",") if part.strip()]
    return items


def _once(name: str, value: object, other: object, default: object) -> object:
    """A value that may be given once: the only item of a list, or text of one line. Raises ParameterError."""
    values = value if isinstance(value, list) else value.strip().splitlines() if isinstance(value, str) else [value]
    if len(values) > 1:
        raise ParameterError(f"'{name}' is given {len(values)} times. Send it once.", field=name)
    found: object = values[0] if values else None
    if found in (None, ""):
        return other
    if other not in (None, default) and str(other).lower() != str(found).lower():
        raise ParameterError(
            f"'{name}' is '{str(other)[:50]}' in one place of the request and '{str(found)[:50]}' in another. "
            "Send it once.",
            field=name,
        )
    return found


def _refuse_nul(name: str, value: object) -> None:
    texts = [name, *(value if isinstance(value, list | tuple) else [value])]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise ParameterError(f"{name[:50]!a} contains a NUL character. Remove it.", field=name.replace("\0", ""))


def _invalid(error: ValidationError, name: str) -> ParameterError:
    first = error.errors()[0]
    field_name = ".".join(map(str, first["loc"])) or name
    return ParameterError(f"'{field_name}': {first['msg']}.", field=field_name)


def outputs_of(bound: Sequence[BoundTask]) -> tuple[OutputSpec, ...]:
    """The outputs of several tasks, in order, hidden ones included."""
    return tuple(output for task in bound for output in task.outputs)


def visible(outputs: Iterable[OutputSpec]) -> tuple[OutputSpec, ...]:
    """The outputs that are part of a result."""
    return tuple(output for output in outputs if not output.hidden)


def metadata_of(bound: Sequence[BoundTask]) -> dict[str, object]:
    """Metadata of several tasks, merged."""
    return {name: what for task in bound for name, what in task.metadata().items()}
