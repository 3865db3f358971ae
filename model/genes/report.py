"""InputReport: what the values of a file are, and what its cells are divided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InputReport:
    """What the values of a file are.

    Attributes:
        detected: ``counts``, ``linear`` (normalised, without a logarithm) or ``log``.
        why: the reason, in one sentence.
        base: base of the logarithm of ``x + 1``: ``e``, ``2`` or ``10``.
        total: what a whole cell sums to before the logarithm, where that is known.
        source: ``X``, ``raw`` or the name of a layer.
        divide_by: what a cell's linear values are divided by: their sum, ``total``, the cell's total in ``obs``, or
            that total times what one count became.
        rounded: whether the values were rounded, so that counts are to be restored.
        counts_matched: share of the counts that lie in genes of the model, of the first cells.
        warnings: what a user should know, in sentences.
    """

    detected: Literal["counts", "linear", "log"]
    why: str
    base: Literal["e", "2", "10"] | None = None
    total: float | None = None
    source: str = "X"
    divide_by: Literal["sum", "total", "obs", "unit"] = "sum"
    rounded: bool = False
    counts_matched: float | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The public part, as JSON."""
        return {
            "detected": self.detected,
            "base": self.base,
            "total": self.total,
            "from": self.source,
            "why": self.why,
        }

    @property
    def transform(self) -> str:
        """Name of the transform whose inverse makes the values linear."""
        return {None: "linear", "e": "log", "2": "log2", "10": "log10"}[self.base]
