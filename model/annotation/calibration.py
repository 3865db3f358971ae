"""From scores to probabilities: a logistic curve that was fitted on data sets held out of the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """How scores become answers.

    Attributes:
        slope, intercept: the probability of a label with share ``s`` is the logistic function of
            ``slope * logit(s) + intercept``; slope 1 and intercept 0 leave shares unchanged.
        threshold: a cell is unknown beyond this distance to the nearest reference cell.
    """

    slope: float
    intercept: float
    threshold: float

    def probability(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability that a label is right, from its share of the score ``[B]``."""
        clipped = np.clip(share, 1e-6, 1 - 1e-6)
        logit = np.log(clipped / (1 - clipped))
        return 1 / (1 + np.exp(-(self.slope * logit + self.intercept)))

    def as_dict(self) -> dict[str, Any]:
        """The calibration as JSON."""
        return asdict(self)
