"""A progress bar on stderr, and the note of the result as JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from scpalm.model.genes.matching.alignment import Coverage


class CellProgress:
    """Shows how many cells are done. A context manager; the bar appears when `start` is called.

    ``as_json``: print the note of the result as JSON on stdout instead of a summary on stderr.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._note: Mapping[str, object] = {}
        self._bar: tqdm[None] | None = None
        self._summary = ""

    def start(self, num_cells: int, coverage: Coverage | None = None) -> None:
        """Show the bar. ``coverage`` is summarised when the bar closes."""
        if coverage is not None:
            self._summary = f"{coverage.genes_matched} of {coverage.genes_in} genes are in the model's vocabulary"
        self._bar = tqdm(total=num_cells, desc="cells", unit=" cells", file=sys.stderr, dynamic_ncols=True)

    def tell(self, note: Mapping[str, object]) -> None:
        """Show how the values were read, and warnings, when the bar closes. ``note``: that of the result."""
        self._note = note
        read = note.get("input")
        if isinstance(read, Mapping):
            self._summary += f"\nvalues: {read['detected']} from {read['from']} ({read['why']})"
        warnings = note.get("warnings")
        if isinstance(warnings, Sequence):
            self._summary += "".join(f"\nwarning: {text}" for text in warnings)

    def advance(self, num_cells: int) -> None:
        """Count further cells as done."""
        if self._bar is not None:
            self._bar.update(num_cells)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        # After a failure, remove the bar so that only the error is shown.
        self._bar.leave = error is None
        self._bar.close()
        if error is None and self._as_json:
            print(json.dumps(self._note, indent=2, default=list))
        elif error is None and self._summary:
            print(self._summary, file=sys.stderr)
