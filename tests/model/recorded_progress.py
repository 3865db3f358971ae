"""A progress that remembers what it heard."""

from __future__ import annotations

from collections.abc import Callable

from scpalm.model.genes.vocabulary import Coverage


class RecordedProgress:
    """``advanced``: each number of cells. ``on_advance`` is called after it was recorded."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.num_cells = 0
        self.advanced: list[int] = []
        self._on_advance = on_advance

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        self.num_cells = num_cells

    def advance(self, num_cells: int) -> None:
        self.advanced.append(num_cells)
        self._on_advance()
