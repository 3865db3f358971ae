"""Matrix products whose bits do not depend on the number of cells or of threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.folded import CELL_BLOCK, ONE_THREAD, cell_blocks

Floats = NDArray[np.float32]


def fixed_product(x: Floats, weight: Floats) -> Floats:
    """``[C, in] @ [in, out] -> [C, out]`` in float32.

    Cells run in blocks of a fixed size, and each product is small enough for one thread of BLAS. So a cell has the same
    result alone and among others.
    """
    blocks = cell_blocks(x)[0]  # [blocks, in, CELL_BLOCK]
    transposed = np.ascontiguousarray(weight.T, dtype=np.float32)  # [out, in]
    step = max(ONE_THREAD // (x.shape[1] * CELL_BLOCK), 1)
    out = np.empty((len(blocks), len(transposed), CELL_BLOCK), dtype=np.float32)
    for start in range(0, len(transposed), step):
        np.matmul(transposed[None, start : start + step], blocks, out=out[:, start : start + step])
    return np.ascontiguousarray(out.swapaxes(1, 2)).reshape(-1, len(transposed))[: len(x)]
