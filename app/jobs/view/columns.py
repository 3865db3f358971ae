"""One value per cell: numbers, or texts as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.io.labels import Categories

_MOST_CATEGORIES = 30  # of whole numbers; more are taken for numbers


@dataclass(frozen=True, eq=False)
class Column:
    """Values ``[B]``, or ``[B, 2]`` for a map.

    Attributes:
        values: float32, NaN where missing; with categories int32, positions among them, -1 where missing.
        categories: the texts; None for numbers.
    """

    values: NDArray[Any]
    categories: Sequence[str] | None = None

    def as_dict(self) -> dict[str, object]:
        """The JSON form. NaN becomes null."""
        if self.categories is not None:
            return {"kind": "categories", "categories": list(self.categories), "values": self.values}
        return {"kind": "numbers", "values": np.ascontiguousarray(self.values, np.float32)}


def column_of_texts(found: Categories) -> Column:
    """A column of ``obs``: numbers if all texts are numbers and they are not few whole ones, such as clusters."""
    try:
        numbers = np.array([float(name) for name in found.names], dtype=np.float64)
    except ValueError:
        return Column(found.codes, found.names)
    if len(numbers) > _MOST_CATEGORIES or (numbers != np.rint(numbers)).any():
        return Column(np.append(numbers, np.nan)[found.codes].astype(np.float32))
    order = np.argsort(numbers, kind="stable")
    place = np.append(np.argsort(order), -1).astype(np.int32)  # code -1 stays -1
    return Column(place[found.codes], [found.names[at] for at in order])
