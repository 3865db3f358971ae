"""A progress bar on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from scpalm.model.genes.vocabulary import Coverage


class CellProgress:
    """Cells done, of a number that is known only once the file is open. A context manager."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._summary = ""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        """Open the bar. ``coverage`` is told at the end."""
        if coverage is not None:
            self._summary = f"{coverage.genes_matched} of {coverage.genes_in} genes are known to the model"
        self._bar = tqdm(total=num_cells, desc="cells", unit=" cells", file=sys.stderr, dynamic_ncols=True)

    def advance(self, num_cells: int) -> None:
        if self._bar is not None:
            self._bar.update(num_cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        # Of a failure, the error is the one line that counts.
        self._bar.leave = error is None
        self._bar.close()
        if error is None and self._summary:
            print(self._summary, file=sys.stderr)
