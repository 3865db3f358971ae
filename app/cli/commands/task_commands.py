"""One command per task, with the options that the task declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer
from pydantic.fields import FieldInfo

from scpalm.app.cli.options import (
    BundleOption,
    InArgument,
    InputOption,
    JsonOption,
    LayerOption,
    OutOption,
    TotalOption,
)
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.task import AnyTask, Flag

_COMMON = {
    "source": InArgument,
    "out": OutOption,
    "bundle": BundleOption,
    "layer": LayerOption,
    "input": InputOption,
    "total": TotalOption,
    "as_json": JsonOption,
}
_DEFAULTS = {"bundle": None, "layer": None, "input": "auto", "total": None, "as_json": False}
_EXAMPLES = {
    "impute": "scpalm impute cells.h5ad --gene CD3D --gene LYZ -o imputed.csv",
    "pathways": "scpalm pathways cells.h5ad --summary -o shares.csv",
    "ic50": "scpalm ic50 tumour.h5ad --by cell_type --drug Erlotinib -o ic50.csv",
    "umap": "scpalm umap cells.h5ad -o map.h5ad",
}


def task_command(task: AnyTask) -> Callable[..., None]:
    """A function that typer turns into ``scpalm TASK IN.h5ad -o OUT.h5ad [options of the task]``."""
    fields = task.options.model_fields

    def command(source: Path, out: Path, bundle: Path | None, *, as_json: bool, **arguments: Any) -> None:
        common = {name: arguments.pop(name) for name in ("layer", "input", "total")}
        # typer passes repeatable options as lists; an empty list means that the option was not given.
        options = {name: value for name, value in arguments.items() if value not in (None, [])}
        run_task(source, out, bundle, RequestSpec((task.name,), options, **common), as_json=as_json)

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
    command.__doc__ = f"{task.summary}\n\nExample: {_EXAMPLES[task.name]}" if task.name in _EXAMPLES else task.summary
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


def run_task(source: Path, out: Path, bundle: Path | None, spec: RequestSpec, *, as_json: bool = False) -> None:
    """Run a task on all cells of a file, with a progress bar. If it fails, ``out`` is not written.

    ``as_json``: print the note of the result. Raises InputError, ParameterError, BundleError, MissingPartError,
    MissingRuntimeError, OSError.
    """
    from scpalm.app.cli.pipes import as_files, is_pipe
    from scpalm.app.cli.progress import CellProgress
    from scpalm.app.offline.files import READABLE, process_file
    from scpalm.app.offline.tables import check_ending
    from scpalm.model.engine import load
    from scpalm.model.errors import InputError, ParameterError

    # Before the model is loaded, which takes seconds.
    if not source.exists() and not is_pipe(source):
        raise InputError("no-such-file", f"{source} does not exist.", hint=f"Give {READABLE}.")
    if as_json and is_pipe(out):
        raise ParameterError("--json and -o - both write to stdout. Give a file with -o.", field="json")
    with as_files(source, out) as (read, written):
        check_ending(written)
        engine = load(bundle)
        with CellProgress(as_json=as_json) as progress:
            process_file(read, written, engine, spec, progress)
