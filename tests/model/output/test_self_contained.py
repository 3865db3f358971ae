"""What others receive refers to nothing outside the file, and to nothing by reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from scpalm.model.errors import InputError
from scpalm.model.output.h5ad_writer import H5adWriter
from tests.model.io.hdf5.h5ad_leaks import external_link_elsewhere
from tests.model.small_cells import NUM_CELLS, small_counts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cells = small_counts()
    cells.obs["kind"] = pd.Categorical(["a", "b"] * (NUM_CELLS // 2) + ["a"] * (NUM_CELLS % 2))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    file["uns"].create_virtual_dataset("fault", layout)


def stored_outside(file: h5py.File) -> None:
    file["uns"].create_dataset("fault", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def object_references(file: h5py.File) -> None:
    file["uns"].create_dataset("fault", data=[file["X"].ref], dtype=h5py.ref_dtype)


def region_references(file: h5py.File) -> None:
    file["uns"].create_dataset("fault", (1,), h5py.regionref_dtype)


def references_in_a_table(file: h5py.File) -> None:
    file["uns"].create_dataset("fault", (1,), np.dtype([("number", "i4"), ("reference", h5py.ref_dtype)]))


def lists_of_references(file: h5py.File) -> None:
    file["uns"].create_dataset("fault", (1,), h5py.vlen_dtype(h5py.ref_dtype))


def an_external_link(file: h5py.File) -> None:
    external_link_elsewhere(file)


FAULTS: list[tuple[Callable[[h5py.File], None], str]] = [
    (virtual, "external-storage"),
    (stored_outside, "external-storage"),
    (object_references, "references"),
    (region_references, "references"),
    (references_in_a_table, "references"),
    (lists_of_references, "references"),
    (an_external_link, "external-link"),
]


@pytest.mark.parametrize(("spoil", "code"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_file_that_refers_elsewhere_is_not_sent(path: Path, spoil: Callable[[h5py.File], None], code: str) -> None:
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(InputError) as caught:
        H5adWriter(path)
    assert caught.value.code == code
    with h5py.File(path, "r+"):  # and it is closed
        pass


def test_references_in_attributes_are_removed(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/data"].attrs["DIMENSION"] = file["X/indices"].ref
        file["obs"].attrs.create("LIST", [file["X"].ref] * 2, dtype=h5py.ref_dtype)
        file.attrs["self"] = file.ref
        kept = {name: len(file[name].attrs) for name in ("X", "obs", "obs/kind")}
    with H5adWriter(path):
        pass
    with h5py.File(path) as file:
        assert "DIMENSION" not in file["X/data"].attrs and "self" not in file.attrs
        assert len(file["obs"].attrs) == kept["obs"] - 1
        assert len(file["X"].attrs) == kept["X"] and len(file["obs/kind"].attrs) == kept["obs/kind"]
    assert list(anndata.read_h5ad(path).obs["kind"].cat.categories) == ["a", "b"]


def test_categories_of_old_files_are_kept(path: Path) -> None:
    """anndata before 0.8 stored the codes, and a reference to the categories."""
    with h5py.File(path, "r+") as file:
        codes = file["obs/kind/codes"][:]
        file["obs/__categories/kind"] = file["obs/kind/categories"][:]
        del file["obs/kind"]
        file["obs"].create_dataset("kind", data=codes).attrs["categories"] = file["obs/__categories/kind"].ref
    with H5adWriter(path):
        pass
    with h5py.File(path) as file:
        reference = file["obs/kind"].attrs["categories"]
        assert file[reference].name == "/obs/__categories/kind"
