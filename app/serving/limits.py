"""What a service allows one body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BodyLimits:
    """Limits of one body.

    Attributes:
        max_bytes: as sent, and after decompression. idle_seconds: longest pause within it.
        spool_dir: where large bodies are kept.
    """

    max_bytes: int
    idle_seconds: float
    spool_dir: Path
