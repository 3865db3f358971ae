"""Limits on request bodies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BodyLimits:
    """Limits on a request body.

    Attributes:
        max_bytes: maximum size, before and after decompression.
        idle_seconds: maximum time without any bytes.
        spool_dir: folder for large bodies.
        min_bytes_per_second: minimum rate on average, after the first ``idle_seconds``; 0 for none.
        max_seconds: maximum time to wait for a body in all.
    """

    max_bytes: int
    idle_seconds: float
    spool_dir: Path
    min_bytes_per_second: float = 0.0
    max_seconds: float = math.inf
