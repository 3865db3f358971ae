"""The layer behind the drug encoder, solved: ridge regression without a penalty on the mean."""

from __future__ import annotations

import torch
from torch import Tensor

# sd, beside the 1 that batch norm gives, under which a pooled feature counts as equal for all drugs
SAME = 1e-2


def solve(said: Tensor, goal: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight ``[p, out]`` and bias ``[out]``, float64, with ``said @ weight + bias`` near ``goal``.

    ``W = X^T (X X^T / p + ridge)^-1 (goal - mean) / p`` with standardised features X ``[drugs, p]`` of ``said``, so
    that ``ridge`` stands beside a mean diagonal of 1. Features that do not tell the drugs apart get no weight: a drug
    that has one of them for the first time would be sent far away by it.
    """
    said, goal = said.double(), goal.double()
    mean, sd, centre = said.mean(0), said.std(0), goal.mean(0)
    inverse = torch.where(sd > SAME, 1 / sd, 0.0)
    x = (said - mean) * inverse
    gram = x @ x.T / x.shape[1]
    dual = torch.linalg.solve(gram + ridge * torch.eye(len(x), dtype=gram.dtype), goal - centre)
    weight = (x.T @ dual / x.shape[1]) * inverse[:, None]
    return weight, centre - mean @ weight
