"""The last step of a request: outputs that depend on several cells, such as votes, from the values of all cells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from scpalm.app.background import completed
from scpalm.app.codecs.result import OutputValues
from scpalm.app.errors import InferenceError
from scpalm.model.layout.process import LayoutError
from scpalm.model.spec import visible
from scpalm.model.tasks.task import BoundTask, Values

T = TypeVar("T")

# Threads of their own: a layout takes seconds, and the default ones serve everything else that blocks.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="conclusion")


def conclude(task: BoundTask, values: Mapping[str, Values]) -> Mapping[str, Values]:
    """What a task concludes from the values of all cells. Blocking. Raises InferenceError."""
    try:
        return task.conclude(values)
    except LayoutError as error:
        raise InferenceError(str(error)) from error


def concluded(tasks: Sequence[BoundTask], outputs: Sequence[OutputValues]) -> tuple[OutputValues, ...]:
    """The visible outputs, with those replaced that a task concludes. Blocking. Raises InferenceError."""
    found = {output.spec.name: output for output in outputs}
    for task in tasks:
        if task.concludes:
            values = conclude(task, {spec.name: found[spec.name].load() for spec in task.outputs})
            found |= {name: replace(found[name], values=array) for name, array in values.items()}
    return tuple(replace(found[spec.name], spec=spec) for task in tasks for spec in visible(task.outputs))


async def in_thread(tasks: Sequence[BoundTask], work: Callable[[], T]) -> T:
    """Run work that concludes tasks in a thread. A cancellation stops the tasks and waits for the thread."""
    running = asyncio.get_running_loop().run_in_executor(_THREADS, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        for task in tasks:
            task.stop()
        await completed(_ended(running))
        raise


async def _ended(running: asyncio.Future[T]) -> None:
    await asyncio.wait([running])
    running.exception()  # mark it as retrieved
