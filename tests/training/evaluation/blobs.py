"""Synthetic cells with known groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def blobs(
    sizes: tuple[int, ...] = (80, 60, 40), *, width: int = 8, spread: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Gaussian groups of unit variance around centres ``12 * spread`` apart; labels 'type 0', 'type 1', ..."""
    generator = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.zeros((len(sizes), width))
    centres[np.arange(len(sizes)), np.arange(len(sizes))] = 12.0 * spread
    array = centres[codes] + generator.normal(size=(len(codes), width))
    order = generator.permutation(len(codes))
    return array[order], np.array([f"type {code}" for code in codes[order]], dtype=object)
