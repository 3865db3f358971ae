"""Kinds of files other than a plain h5ad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from tests.inputs.clean import Clean


def ten_x_file(cells: Clean, folder: Path) -> Path:
    """10x's filtered_feature_bc_matrix.h5, with two antibodies."""
    path = folder / "filtered_feature_bc_matrix.h5"
    counts = sparse.csr_matrix(np.concatenate([cells.counts, np.full((len(cells.counts), 2), 99)], axis=1))
    names = [*cells.symbols, "CD3", "CD19"]
    ids = [i or s for i, s in zip(cells.ids, cells.symbols, strict=True)] + ["CD3", "CD19"]
    kinds = ["Gene Expression"] * len(cells.symbols) + ["Antibody Capture"] * 2
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(counts, part).astype("i8")
        group["shape"] = np.array(counts.shape[::-1])
        group["barcodes"] = np.array([f"cell{i}" for i in range(len(cells.counts))], dtype="S")
        for name, values in (("id", ids), ("name", names), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array([value.encode() for value in values])
    return path


def h5ad_by_columns(cells: Clean, folder: Path) -> Path:
    """An h5ad file whose matrix is stored by columns, without encoding, and its shape as doubles."""
    path = folder / "cells.h5ad"
    made = cells.adata()
    made.X = sparse.csc_matrix(made.X)
    made.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        shape = file["X"].attrs["shape"]
        del file["X"].attrs["shape"]
        file["X"].attrs["shape"] = np.asarray(shape, float)
    return path


FILES: dict[str, Callable[[Clean, Path], Path]] = {"ten_x_file": ten_x_file, "h5ad_by_columns": h5ad_by_columns}
