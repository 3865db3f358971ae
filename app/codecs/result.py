"""The result of a request, before it is encoded in a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scpalm.app.storage.values import StoredValues
from scpalm.model.tasks.task import OutputSpec, Values


@dataclass(frozen=True, eq=False)
class OutputValues:
    """One output and its values ``[B, width]``, in memory or in a file."""

    spec: OutputSpec
    values: Values | StoredValues

    @property
    def num_bytes(self) -> int:
        """Size of the values in bytes."""
        return self.values.shape[0] * self.values.shape[1] * self.values.dtype.itemsize

    def load(self) -> Values:
        """The values as an array in memory."""
        return self.values.read(0, self.values.shape[0]) if isinstance(self.values, StoredValues) else self.values


@dataclass(frozen=True, eq=False)
class Result:
    """Values for B cells.

    Attributes:
        cells: names of the cells.
        outputs: the outputs, the main one first.
        note: JSON with the model, coverage, type of input and any metadata of the tasks.
    """

    cells: list[str]
    outputs: tuple[OutputValues, ...]
    note: Mapping[str, object]

    @property
    def num_bytes(self) -> int:
        """Size of all values in bytes."""
        return sum(output.num_bytes for output in self.outputs)
