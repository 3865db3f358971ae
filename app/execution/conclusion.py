"""The last step of a request: outputs that depend on several cells, such as votes, from the values of all cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scpalm.app.codecs.result import OutputValues
from scpalm.model.tasks.task import BoundTask


def concluded(tasks: Sequence[BoundTask], outputs: tuple[OutputValues, ...]) -> tuple[OutputValues, ...]:
    """The outputs, with those replaced that a task concludes. Blocking."""
    found = {output.spec.name: output for output in outputs}
    for task in tasks:
        if task.concludes:
            values = task.conclude({spec.name: found[spec.name].load() for spec in task.outputs})
            found |= {name: replace(found[name], values=array) for name, array in values.items()}
    return tuple(found[output.spec.name] for output in outputs)
