"""Measures how fast work gets done, counting only time with work."""

from __future__ import annotations

import math
from collections import deque


class Throughput:
    """Rows per second over the last half minute of work."""

    def __init__(self, window_seconds: float = 30.0) -> None:
        self._window = window_seconds
        self._spans: deque[tuple[float, int]] = deque()
        self._seconds = 0.0
        self._rows = 0

    def observe(self, seconds: float, rows: int) -> None:
        """Note that ``rows`` took ``seconds`` of work."""
        self._spans.append((seconds, rows))
        self._seconds += seconds
        self._rows += rows
        while len(self._spans) > 1 and self._seconds - self._spans[0][0] > self._window:
            oldest_seconds, oldest_rows = self._spans.popleft()
            self._seconds -= oldest_seconds
            self._rows -= oldest_rows

    @property
    def rows_per_second(self) -> float:
        """0 while nothing has been measured."""
        return self._rows / self._seconds if self._seconds > 0.0 else 0.0

    def seconds_for(self, rows: int) -> int:
        """Whole seconds that ``rows`` take, at least 1; 1 while nothing has been measured."""
        return seconds_for(rows, self.rows_per_second)


def seconds_for(rows: int, rows_per_second: float) -> int:
    """Whole seconds that ``rows`` take, at least 1; 1 when the speed is not known."""
    return max(1, math.ceil(rows / rows_per_second)) if rows_per_second > 0.0 else 1
