"""Tables in ``obsm`` of an h5ad file, such as mutations of cells."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import check_length
from scpalm.model.io.hdf5.access import attribute, checked, find, guarded, refuse_over
from scpalm.model.io.hdf5.frame import Frame

_MAX_COLUMNS = 50_000


MAP_NAMES = ("X_umap", "umap", "UMAP", "X_tsne", "tsne", "X_draw_graph_fa", "X_pca")


def maps_of(file: h5py.File, num_cells: int, max_bytes: int | None) -> dict[str, NDArray[np.float32]]:
    """Maps ``[B, 2]`` in ``obsm`` under usual names: their first two columns. Faulty ones are left out."""
    found: dict[str, NDArray[np.float32]] = {}
    for name in MAP_NAMES:
        node = find(file, f"obsm/{name}")
        if not isinstance(node, h5py.Dataset):
            continue
        dataset = checked(node, f"obsm/{name}", ndim=2, max_bytes=max_bytes)
        if dataset.dtype.kind in "iuf" and dataset.shape[0] == num_cells and dataset.shape[1] >= 2:
            with guarded(f"'obsm/{name}'"):
                values = np.asarray(dataset[:, :2], dtype=np.float32)
            if np.isfinite(values).all():
                found[name] = values
    return found


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
