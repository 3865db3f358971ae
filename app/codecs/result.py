"""What a request is answered with, before it has a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scpalm.app.storage.values import StoredValues
from scpalm.model.tasks.task import OutputSpec, Values


@dataclass(frozen=True, eq=False)
class OutputValues:
    """One output with its values ``[B, width]``, in memory or in a file."""

    spec: OutputSpec
    values: Values | StoredValues

    @property
    def num_bytes(self) -> int:
        return self.values.shape[0] * self.values.shape[1] * self.values.dtype.itemsize

    def load(self) -> Values:
        """The values in memory."""
        return self.values.read(0, self.values.shape[0]) if isinstance(self.values, StoredValues) else self.values


@dataclass(frozen=True, eq=False)
class Result:
    """Values for B cells.

    Attributes:
        cells: their names. outputs: the main output first. note: model, coverage, input and what tasks add; JSON.
    """

    cells: list[str]
    outputs: tuple[OutputValues, ...]
    note: Mapping[str, object]

    @property
    def num_bytes(self) -> int:
        return sum(output.num_bytes for output in self.outputs)
