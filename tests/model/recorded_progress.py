"""A progress that records its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scpalm.model.genes.matching.alignment import Coverage


class RecordedProgress:
    """``advanced``: the number of cells of each call. ``on_advance`` is called after a call was recorded."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.num_cells = 0
        self.advanced: list[int] = []
        self._on_advance = on_advance

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        self.num_cells = num_cells

    def tell(self, note: Mapping[str, object]) -> None:
        self.note = note

    def advance(self, num_cells: int) -> None:
        self.advanced.append(num_cells)
        self._on_advance()
