"""Limits on request bodies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BodyLimits:
    """Limits on a request body.

    Attributes:
        max_bytes: maximum size, before and after decompression.
        idle_seconds: maximum time without any bytes.
        spool_dir: folder for large bodies.
    """

    max_bytes: int
    idle_seconds: float
    spool_dir: Path
