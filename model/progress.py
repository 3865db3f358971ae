"""How far a run is, reported to whoever shows it."""

from __future__ import annotations

from typing import Protocol

from scpalm.model.genes.vocabulary import Coverage


class Progress(Protocol):
    """A progress bar, or anything else that wants to know."""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        """The number of cells to come, and which genes are known."""
        ...

    def advance(self, num_cells: int) -> None:
        """So many more cells are done."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        return

    def advance(self, num_cells: int) -> None:
        return
