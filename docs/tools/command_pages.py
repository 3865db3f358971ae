"""The commands of ``scpalm`` and ``scpalm-train`` as Markdown, from their parsers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

ROOT = Path(__file__).parents[2]


def commands_of(program: str) -> dict[str, Any]:
    """All commands of a program by full name, such as ``scpalm-train evaluate clustering``."""
    if program == "scpalm":
        from scpalm.app.cli.main import cli
    else:
        from scpalm.training.cli.main import app as cli
    return dict(_leaves(typer.main.get_command(cli), program))


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    else:
        for key, one in inner.items():
            yield from _leaves(one, f"{name} {key}")


def markdown(program: str) -> str:
    """A section for each command: its help, its arguments and options."""
    lines = []
    for name, command in commands_of(program).items():
        lines += [f"## `{name}`", "", _escaped(command.help or ""), ""]
        rows = [row for parameter in command.params if (row := _row(parameter))]
        if rows:
            lines += ["| argument or option | default | what it does |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    """A line of the table; empty for hidden options and ``--help``."""
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return ""
    is_option = parameter.param_type_name == "option"
    names = (
        ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{parameter.metavar or parameter.name}`"
    )
    shown = "required" if parameter.required else _default(parameter.default)
    text = _escaped(getattr(parameter, "help", None) or "")
    if choices := _choices(parameter):
        text += " One of: " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return f"| {names} | {shown} | {text} |"


def _default(value: Any) -> str:
    """The default in code marks; empty for none. Paths are shown from the top of the repository."""
    if value is None or value is False or callable(value) or not str(value) or value in ((), []):
        return ""
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        return f"`{value.relative_to(ROOT)}`"
    return f"`{value}`"


def _choices(parameter: Any) -> tuple[str, ...]:
    """The values that an option takes. Typer keeps them as ``Literal`` or, in older releases, as a choice of click."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(getattr(getattr(parameter, "type", None), "choices", ()))


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
