"""How fast work gets done, measured while there is some."""

from __future__ import annotations

import math
from collections import deque


class Throughput:
    """Rows a second while there was work, over the last half minute of work."""

    def __init__(self, window_seconds: float = 30.0) -> None:
        self._window = window_seconds
        self._spans: deque[tuple[float, int]] = deque()
        self._seconds = 0.0
        self._rows = 0

    def observe(self, seconds: float, rows: int) -> None:
        self._spans.append((seconds, rows))
        self._seconds += seconds
        self._rows += rows
        while len(self._spans) > 1 and self._seconds - self._spans[0][0] > self._window:
            old_seconds, old_rows = self._spans.popleft()
            self._seconds -= old_seconds
            self._rows -= old_rows

    @property
    def rows_per_second(self) -> float:
        """0 while nothing has been measured."""
        return self._rows / self._seconds if self._seconds > 0.0 else 0.0

    def seconds_for(self, rows: int) -> int:
        """Whole seconds to get through ``rows``, at least 1; 1 while nothing has been measured."""
        return seconds_for(rows, self.rows_per_second)


def seconds_for(rows: int, rows_per_second: float) -> int:
    """Whole seconds to get through ``rows``, at least 1; 1 where the speed is not known."""
    return max(1, math.ceil(rows / rows_per_second)) if rows_per_second > 0.0 else 1
