"""What users can say about the values they send."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Declared = Literal[
    "auto",
    "counts",
    "linear",
    "log",
    "log2",
    "log10",
    "cp10k",
    "cpm",
    "tpm",
    "log_cp10k",
    "log_cpm",
    "log_tpm",
    "log2_cp10k",
    "log2_cpm",
    "log2_tpm",
    "log10_cp10k",
    "log10_cpm",
    "log10_tpm",
]
_TOTALS = {"cp10k": 1e4, "cpm": 1e6, "tpm": 1e6}
_BASES = {"log": math.e, "log2": 2.0, "log10": 10.0}


@dataclass(frozen=True)
class Declaration:
    """What the values of a matrix are, as far as the user says.

    Attributes:
        name: the declared kind of input.
        total: what a whole cell sums to before the logarithm, or None.

    Example:
        >>> Declaration("log2_tpm").base
        2.0
    """

    name: Declared = "auto"
    total: float | None = None

    @property
    def base(self) -> float | None:
        """Base of the logarithm of ``x + 1``; None if the values are not declared as logs."""
        return _BASES.get(self.name.partition("_")[0])

    @property
    def whole_cell(self) -> float | None:
        """What a whole cell sums to, from ``total`` or the name, or None."""
        return self.total or _TOTALS.get(self.name.rpartition("_")[2])

    @property
    def linear(self) -> bool:
        """Whether the values are declared as normalised and without a logarithm."""
        return self.name == "linear" or self.name in _TOTALS


AUTO = Declaration()
