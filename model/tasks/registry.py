"""Registry of tasks: imports every module in this folder once; `register` collects the tasks they declare."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic.fields import FieldInfo

from scpalm.model.tasks.common_options import RESERVED
from scpalm.model.tasks.task import AnyTask

T = TypeVar("T", bound=type[AnyTask])

_registered: dict[str, AnyTask] = {}


def register(kind: T) -> T:
    """Class decorator: register a task under its name. Raises ValueError if the name is taken."""
    if kind.name in _registered:
        raise ValueError(f"Two tasks have the name '{kind.name}'.")
    _registered[kind.name] = kind()
    return kind


@cache
def tasks() -> MappingProxyType[str, AnyTask]:
    """All tasks by name, sorted."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    _check_option_names()
    return MappingProxyType(dict(sorted(_registered.items())))


@cache
def task_names() -> tuple[str, ...]:
    """Names of all tasks, sorted."""
    return tuple(tasks())


def combinable() -> tuple[AnyTask, ...]:
    """Tasks that can share one pass of the network (``?also=``)."""
    return tuple(task for task in tasks().values() if not task.alone)


def _check_option_names() -> None:
    """Raise ValueError if two tasks use one option name with different types, or if a name is reserved."""
    seen: dict[str, tuple[str, FieldInfo]] = {}
    for task in _registered.values():
        for name, option in task.options.model_fields.items():
            if name in RESERVED:
                raise ValueError(f"Task '{task.name}' has an option '{name}', which every request has. Rename it.")
            owner, other = seen.setdefault(name, (task.name, option))
            if other.annotation != option.annotation:
                raise ValueError(f"Tasks '{owner}' and '{task.name}' use option '{name}' for different things.")
