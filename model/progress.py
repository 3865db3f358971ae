"""Progress of a run, reported to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from scpalm.model.genes.matching.alignment import Coverage


class Progress(Protocol):
    """Receives the progress of a run, for example to draw a progress bar."""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        """Called once, with the total number of cells and the genes that matched."""
        ...

    def tell(self, note: Mapping[str, object]) -> None:
        """Called once, with the note of the results: how the cells were read, and warnings."""
        ...

    def advance(self, num_cells: int) -> None:
        """Called when ``num_cells`` more cells are done."""
        ...


class NoProgress:
    """Ignores all progress."""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        return

    def tell(self, note: Mapping[str, object]) -> None:
        return

    def advance(self, num_cells: int) -> None:
        return
