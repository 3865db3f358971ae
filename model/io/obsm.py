"""Tables in ``obsm`` of an h5ad file, such as mutations of cells."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import check_length
from scpalm.model.io.frame import Frame
from scpalm.model.io.hdf5 import attribute, find, refuse_over

_MAX_COLUMNS = 50_000


def obsm_table(
    file: h5py.File, name: str, num_cells: int, max_bytes: int | None
) -> tuple[list[str], NDArray[np.float32]] | None:
    """A dataframe of numbers in ``obsm``: column names, and values ``[B, columns]`` with NaN where missing.

    Returns None if there is none. Raises InputError if it is not a dataframe of numbers, OverLimitError if it is
    too large.
    """
    path = f"obsm/{name}"
    node = find(file, path)
    if node is None:
        return None
    if not isinstance(node, h5py.Group) or attribute(node, "encoding-type") != "dataframe":
        raise InputError(
            "not-a-dataframe",
            f"'{path}' has no column names.",
            hint=f"Store a pandas DataFrame with one column per gene in obsm['{name}'].",
            field=path,
        )
    frame = Frame(node, path, max_bytes)
    names = frame.columns(_MAX_COLUMNS)
    refuse_over(4.0 * len(names) * num_cells, max_bytes, path)
    values = np.empty((num_cells, len(names)), dtype=np.float32)
    for number, column in enumerate(names):
        found = frame.column(column)
        what = f"{path}/{column[:200]}"
        if found is None or found.dtype.kind not in "biuf":
            raise InputError("not-numbers", f"'{what}' does not hold numbers.", hint="Leave it out.", field=what)
        check_length(len(found), num_cells, what, "cells")
        values[:, number] = found
    return names, values
