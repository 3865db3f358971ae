"""Ways to make an h5ad file refer to data outside it, each with the expected error code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.model.small_cells import NUM_CELLS, NUM_GENES


def secret_outside(file: h5py.File) -> str:
    path = Path(file.filename).with_name("secret.h5")
    with h5py.File(path, "w") as other:
        other["values"] = np.ones(NUM_CELLS)
        other["matrix"] = np.ones((NUM_CELLS, NUM_GENES))
    return str(path)


def external_link_to_x(file: h5py.File) -> None:
    del file["X"]
    file["X"] = h5py.ExternalLink(secret_outside(file), "matrix")


def external_link_to_data(file: h5py.File) -> None:
    del file["X/data"]
    file["X/data"] = h5py.ExternalLink(secret_outside(file), "values")


def external_link_elsewhere(file: h5py.File) -> None:
    file["obsm/X_pca"] = h5py.ExternalLink(secret_outside(file), "matrix")


def external_link_behind_a_soft_one(file: h5py.File) -> None:
    del file["X"]
    file["uns/there"] = h5py.ExternalLink(secret_outside(file), "/")
    file["X"] = h5py.SoftLink("/uns/there/matrix")


def soft_links_in_a_circle(file: h5py.File) -> None:
    del file["X"]
    file["X"] = h5py.SoftLink("/Y")
    file["Y"] = h5py.SoftLink("/X")


def external_storage(file: h5py.File) -> None:
    raw = Path(file.filename).with_name("raw.bin")
    raw.write_bytes(bytes(NUM_CELLS * NUM_GENES * 4))
    del file["X"]
    file.create_dataset("X", (NUM_CELLS, NUM_GENES), "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def external_storage_of_indices(file: h5py.File) -> None:
    size = len(file["X/indices"])
    del file["X/indices"]
    file.create_dataset("X/indices", (size,), "i4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((NUM_CELLS, NUM_GENES), "f8")
    layout[:] = h5py.VirtualSource(secret_outside(file), "matrix", (NUM_CELLS, NUM_GENES))
    del file["X"]
    file.create_virtual_dataset("X", layout)


def virtual_names(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((NUM_CELLS,), "f8")
    layout[:] = h5py.VirtualSource(secret_outside(file), "values", (NUM_CELLS,))
    del file["obs/_index"]
    file.create_virtual_dataset("obs/_index", layout)


LEAKS: list[tuple[Callable[[h5py.File], None], str]] = [
    (external_link_to_x, "external-link"),
    (external_link_to_data, "external-link"),
    (external_link_elsewhere, "external-link"),
    (external_link_behind_a_soft_one, "external-link"),
    (soft_links_in_a_circle, "external-link"),
    (external_storage, "external-storage"),
    (external_storage_of_indices, "external-storage"),
    (virtual_dataset, "external-storage"),
    (virtual_names, "external-storage"),
]
