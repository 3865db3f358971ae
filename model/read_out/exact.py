"""Products and inverses whose bits do not depend on the number of BLAS threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4096


def exact_gram(components: NDArray[np.int16], genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[R, R]`` inner products of ``components[genes]``.

    Products of 16-bit numbers over up to 2^22 genes stay below 2^53, so float64 sums are exact in any order.
    """
    out = np.zeros((components.shape[1], components.shape[1]))
    for start in range(0, len(genes), _CHUNK):
        part = components[genes[start : start + _CHUNK]].astype(np.float64)
        out += part.T @ part
    return out


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a symmetric positive definite matrix by Gauss-Jordan sweeps, element by element.

    LAPACK divides the work among threads, and its rounding depends on their number. 256 x 256 takes some 20 ms.
    """
    out = matrix.copy()
    for k in range(len(out)):
        pivot = out[k, k]
        row, column = out[k] / pivot, out[:, k].copy()
        out -= column[:, None] * row
        out[k], out[:, k], out[k, k] = row, -column / pivot, 1 / pivot
    return out
