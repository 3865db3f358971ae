"""Conjugate gradients for a Gaussian process over (line, drug) pairs of which some are not measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TOLERANCE, MAX_STEPS = 1e-3, 400


@dataclass(frozen=True, eq=False)
class Prior:
    """Covariance of the deviations: ``kernel x drugs + calls diag(variance) calls'``, and noise.

    Attributes:
        kernel: ``[L, L]`` between lines. drugs: ``[D, D]`` between drugs.
        noise: ``[L, D]`` variance of the error of each pair.
        calls: ``[L, G]`` mutation calls, centred. variance: ``[G, D]`` prior variance of each effect.
    """

    kernel: Floats
    drugs: Floats
    noise: Floats
    calls: Floats
    variance: Floats

    def times(self, x: Floats) -> Floats:
        """Covariance times ``x [L, D]``."""
        out = (self.kernel @ x) @ self.drugs + self.noise * x
        return out + self.calls @ (self.variance * (self.calls.T @ x)) if self.calls.shape[1] else out


def solve(prior: Prior, measured: NDArray[np.bool_], deviations: Floats) -> Floats:
    """``[L, D]`` weights whose covariance with the measured pairs gives their ``deviations``; 0 for other pairs.

    Stops when the residual is 1e-3 of the right-hand side, or after 400 steps.
    """
    mask = measured.astype(np.float32)
    right = deviations * mask
    diagonal = np.outer(np.diag(prior.kernel), np.diag(prior.drugs)) + prior.noise
    solution = np.zeros_like(right)
    residual = right.copy()
    scaled = residual / diagonal
    direction = scaled.copy()
    product = float((residual * scaled).sum())
    goal = TOLERANCE * float(np.linalg.norm(right))
    for _ in range(MAX_STEPS):
        if np.linalg.norm(residual) <= goal:
            break
        image = mask * prior.times(direction)
        step = product / float((direction * image).sum())
        solution += step * direction
        residual -= step * image
        scaled = residual / diagonal
        before, product = product, float((residual * scaled).sum())
        direction = scaled + product / before * direction
    return solution
