"""Limits on the numbers of cells and genes of a stored matrix."""

from __future__ import annotations

import numpy as np

from scpalm.model.errors import InputError, OverLimitError
from scpalm.model.io.hdf5.stored_matrix import StoredMatrix

_LARGEST_AXIS = np.iinfo(np.int32).max


def check_axes(matrix: StoredMatrix, max_cells: int | None) -> None:
    """Refuse a matrix without cells or genes, or with more of them than are allowed. Raises InputError."""
    num_cells, num_genes = matrix.shape
    for number, axis in ((num_cells, "cells"), (num_genes, "genes")):
        if number < 1:
            raise InputError(
                f"no-{axis}", f"'{matrix.name}' has 0 {axis}.", hint="Send at least one.", field=matrix.name
            )
        if number > _LARGEST_AXIS:
            raise OverLimitError(
                "declared-size", f"'{matrix.name}' has {number} {axis}.", hint="Check the file.", field=matrix.name
            )
    if max_cells is not None and num_cells > max_cells:
        raise OverLimitError(
            "too-many-cells",
            f"The file has {num_cells} cells, but the limit is {max_cells}.",
            hint=f"Send it in parts of at most {max_cells} cells, or use `scpalm embed`.",
            field=matrix.name,
        )
