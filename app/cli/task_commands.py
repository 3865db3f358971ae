"""One command per task, with the options that the task declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer
from pydantic.fields import FieldInfo

from scpalm.app.cli.options import BundleOption, InArgument, InputOption, LayerOption, OutOption, TotalOption
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.task import AnyTask, Flag

_COMMON = {
    "source": InArgument,
    "out": OutOption,
    "bundle": BundleOption,
    "layer": LayerOption,
    "input": InputOption,
    "total": TotalOption,
}
_DEFAULTS = {"bundle": None, "layer": None, "input": "auto", "total": None}


def task_command(task: AnyTask) -> Callable[..., None]:
    """A function that typer turns into ``scpalm TASK IN.h5ad -o OUT.h5ad [options of the task]``."""
    fields = task.options.model_fields

    def command(source: Path, out: Path, bundle: Path | None, **arguments: Any) -> None:
        common = {name: arguments.pop(name) for name in ("layer", "input", "total")}
        # typer passes repeatable options as lists; an empty list means that the option was not given.
        options = {name: value for name, value in arguments.items() if value not in (None, [])}
        run_task(source, out, bundle, RequestSpec((task.name,), options, **common))

    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name, inspect.Parameter.empty), annotation=kind
        )
        for name, kind in _COMMON.items()
    ]
    for name, field in fields.items():
        kind, default = _option(name, field)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__name__ = task.name
    command.__doc__ = task.summary
    return command


def _option(name: str, field: FieldInfo) -> tuple[Any, Any]:
    """Type and default of a command-line option."""
    flags = [f"--{mark.name}" for mark in field.metadata if isinstance(mark, Flag)]
    option = typer.Option(*(flags or [f"--{name}"]), help=field.description)
    if field.annotation is bool:
        return Annotated[bool, typer.Option(f"--{name}", help=field.description)], field.default
    if get_origin(field.annotation) is tuple:
        return Annotated[list[str] | None, option], None
    if get_origin(field.annotation) is Literal or field.annotation in (str, int, float):
        return Annotated[field.annotation, option], field.default
    raise TypeError(f"The command line does not support the type of option '{name}': {field.annotation}.")


def run_task(source: Path, out: Path, bundle: Path | None, spec: RequestSpec) -> None:
    """Run a task on all cells of a file, with a progress bar. If it fails, ``out`` is not written.

    Raises InputError, ParameterError, BundleError, MissingPartError, MissingRuntimeError, OSError.
    """
    from scpalm.app.cli.progress import CellProgress
    from scpalm.app.offline.files import READABLE, process_file
    from scpalm.app.offline.tables import check_ending
    from scpalm.model.engine import load
    from scpalm.model.errors import InputError

    # Before the model is loaded, which takes seconds.
    if not source.exists():
        raise InputError("no-such-file", f"{source} does not exist.", hint=f"Give {READABLE}.")
    check_ending(out)
    engine = load(bundle)
    with CellProgress() as progress:
        process_file(source, out, engine, spec, progress)
