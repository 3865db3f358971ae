"""Solve the layer after the drug encoder: ridge regression without a penalty on the mean."""

from __future__ import annotations

import torch
from torch import Tensor

# A pooled feature with an sd below this counts as equal for all drugs (batch norm gives an sd of 1).
SAME = 1e-2


def solve(features: Tensor, goal: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight ``[p, out]`` and bias ``[out]``, float64, with ``features @ weight + bias`` near ``goal``.

    ``W = X^T (X X^T / p + ridge)^-1 (goal - mean) / p`` with standardised features X ``[drugs, p]`` of ``features``, so
    that ``ridge`` is relative to a mean diagonal of 1. Features that are equal for all drugs get no weight: they would
    cause extreme predictions for the first drug that differs.
    """
    features, goal = features.double(), goal.double()
    mean, sd, centre = features.mean(0), features.std(0), goal.mean(0)
    inverse = torch.where(sd > SAME, 1 / sd, 0.0)
    x = (features - mean) * inverse
    gram = x @ x.T / x.shape[1]
    dual = torch.linalg.solve(gram + ridge * torch.eye(len(x), dtype=gram.dtype), goal - centre)
    weight = (x.T @ dual / x.shape[1]) * inverse[:, None]
    return weight, centre - mean @ weight
