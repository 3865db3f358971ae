"""The progress bar of a job."""

from __future__ import annotations

from tqdm import tqdm


class Bar:
    """A progress bar that appears with the first report of a job."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._bar: tqdm[None] | None = None

    def report(self, done: int, rows: int) -> None:
        """Show this many cells as done."""
        if self._enabled and rows:
            if self._bar is None:
                self._bar = tqdm(total=rows, unit=" cells", dynamic_ncols=True)
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar at its present state."""
        if self._bar is not None:
            self._bar.close()
