"""Damaged and malicious files give a clear error, never an exception of h5py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.io.hdf5.h5ad import H5adFile
from tests.model.io.hdf5.h5ad_faults import FAULTS, STRINGS, swap
from tests.model.io.hdf5.h5ad_leaks import LEAKS
from tests.model.small_cells import NUM_CELLS, NUM_GENES, dense, joined, small_counts


def read(path: Path, *, layer: str | None = None, max_cells: int | None = None, max_bytes: int | None = None) -> None:
    with H5adFile(path, layer=layer, max_cells=max_cells, max_bytes=max_bytes) as file:
        list(file.cells)
        for chunk in file.chunks(7):
            chunk.validate()


def caught_from(path: Path, **how: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **how)
    error = caught.value
    assert error.detail
    assert error.hint
    return error


@pytest.mark.parametrize(("spoil", "code"), LEAKS + FAULTS, ids=[spoil.__name__ for spoil, _ in LEAKS + FAULTS])
def test_fault_is_named(tmp_path: Path, spoil: Callable[[h5py.File], None], code: str) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts().write_h5ad(path)
    read(path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    assert caught_from(path).code == code


def test_an_index_out_of_range_names_its_cell(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        row = int(np.searchsorted(file["X/indptr"][:], 200, side="right")) - 1
        file["X/indices"][200] = 77
    error = caught_from(path)
    assert error.cell == f"cell-{row}"
    assert "77" in error.detail


def test_a_row_index_out_of_range_in_a_column_wise_matrix(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts("csc").write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][9] = NUM_CELLS
    assert caught_from(path).code == "index-out-of-range"


def test_soft_links_inside_the_file_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    cells = small_counts()
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file.move("X", "uns/matrix")
        file["X"] = h5py.SoftLink("/uns/matrix")
    with H5adFile(path) as linked:
        np.testing.assert_array_equal(joined(list(linked.chunks(7))), dense(cells))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "empty"),
        (b"genes,cells\n1,2\n" * 100, "CSV"),
        (b"\x1f\x8b" + bytes(300), "gzip"),
        (b"PK\x03\x04" + bytes(300), "zip"),
        (b"<html>404</html>", "HTML"),
    ],
)
def test_not_hdf5(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_bytes(content)
    error = caught_from(path)
    assert isinstance(error, UnreadableError)
    assert error.code == "not-hdf5"
    assert hint in error.detail


@pytest.mark.parametrize("path", ["absent.h5ad", "."])
def test_no_such_file(tmp_path: Path, path: str) -> None:
    assert caught_from(tmp_path / path).code == "no-such-file"


@pytest.mark.parametrize("kept", [8, 40, 96, 800, 0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts().write_h5ad(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    error = caught_from(path)
    assert isinstance(error, UnreadableError)
    assert error.code == "truncated-h5ad"


def test_a_small_file_that_declares_a_terabyte(tmp_path: Path) -> None:
    path = tmp_path / "dense.h5ad"
    small_counts().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_dataset("X", (NUM_CELLS, 2**36), "f4", chunks=(1, 1024))
    error = caught_from(path, max_bytes=2**30)
    assert isinstance(error, OverLimitError)
    assert error.code == "declared-size"

    path = tmp_path / "sparse.h5ad"
    small_counts().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for part in ("data", "indices"):
            del file[f"X/{part}"]
            file.create_dataset(f"X/{part}", (2**38,), "i4", chunks=(1024,))
        swap(file, "X/indptr", [*file["X/indptr"][:-1], 2**38])
    assert caught_from(path, max_bytes=2**30).code == "declared-size"

    path = tmp_path / "names.h5ad"
    small_counts().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["var/_index"]
        file.create_dataset("var/_index", (2**38,), STRINGS, chunks=(1024,))
    assert caught_from(path, max_bytes=2**30).code == "declared-size"


def test_the_size_limit_covers_all_parts_together(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts().write_h5ad(path)
    with h5py.File(path) as file:
        sizes = [file[f"X/{part}"].nbytes for part in ("data", "indices", "indptr")]
    assert caught_from(path, max_bytes=sum(sizes) - 1).code == "declared-size"
    read(path, max_bytes=max(sum(sizes), 16 * NUM_GENES))


def test_too_many_cells(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    small_counts().write_h5ad(path)
    read(path, max_cells=NUM_CELLS)
    error = caught_from(path, max_cells=NUM_CELLS - 1)
    assert isinstance(error, OverLimitError)
    assert error.code == "too-many-cells"
    assert str(NUM_CELLS) in error.detail


def test_without_x_the_error_lists_the_other_matrices(tmp_path: Path) -> None:
    cells = small_counts()
    cells.layers["counts"] = cells.X.copy()
    cells.X = None
    cells.write_h5ad(tmp_path / "cells.h5ad")
    error = caught_from(tmp_path / "cells.h5ad", layer="X")
    assert error.code == "no-x"
    assert "counts" in error.hint
    read(tmp_path / "cells.h5ad")  # by default, the layer of counts is found
    read(tmp_path / "cells.h5ad", layer="counts")
