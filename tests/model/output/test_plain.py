"""The note in uns: nested plain values, the same in memory, in an h5ad file and in a zarr store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest

from scpalm.model.output.h5ad_writer import H5adWriter
from scpalm.model.output.note import keep_columns, stored_note
from scpalm.model.output.plain import plain_mapping
from tests.model.output.same_plain import assert_same_plain
from tests.model.small_cells import small_counts

NOTE: dict[str, object] = {
    "text": "ln IC50 (\u00b5M)",
    "empty": "",
    "none": None,
    "yes": True,
    "whole": 3,
    "half": 0.5,
    "names": ["a", "b"],
    "no names": [],
    "counts": [1, 2],
    "gaps": [1, None, 2.5],
    "flags": [True, False],
    "mixed": ["a", 1, None, {"x": 1}],
    "by/kind": {"control probe / barcode": 2, "nothing": {}},
    "rows": [{"name": "x", "cells": 1, "shift": None}, {"name": "y", "cells": 2, "more": "z"}],
    "long": {f"cell type {n}": f"CL:{n:07}" for n in range(100)},
    "columns": {"X_scpalm_ic50": ["Erlotinib"]},
}


def written(folder: Path, note: dict[str, Any], before: dict[str, Any] | None = None) -> anndata.AnnData:
    cells = small_counts()
    if before is not None:
        cells.uns["scpalm"] = before
    cells.write_h5ad(folder / "cells.h5ad")
    with H5adWriter(folder / "cells.h5ad") as file:
        file.note(note)
    return anndata.read_h5ad(folder / "cells.h5ad")


def test_a_file_holds_what_memory_holds(tmp_path: Path) -> None:
    note = plain_mapping(NOTE)
    ours = written(tmp_path, note).uns["scpalm"]
    cells = small_counts()
    cells.uns["scpalm"] = note
    cells.write_h5ad(tmp_path / "anndata.h5ad")
    assert_same_plain(ours, anndata.read_h5ad(tmp_path / "anndata.h5ad").uns["scpalm"])
    cells.write_zarr(tmp_path / "anndata.zarr")
    assert_same_plain(anndata.read_zarr(tmp_path / "anndata.zarr").uns["scpalm"], ours)
    assert_same_plain(ours, note)


def test_lists_become_arrays_and_objects_become_columns() -> None:
    note: dict[str, Any] = plain_mapping(NOTE)
    assert "none" not in note and note["no names"].shape == (0,)
    np.testing.assert_array_equal(note["gaps"], [1, np.nan, 2.5])
    assert note["mixed"].tolist() == ["a", "1", "", '{"x": 1}']
    assert note["by|kind"]["control probe | barcode"] == 2
    assert note["rows"]["name"].tolist() == ["x", "y"] and note["rows"]["more"].tolist() == ["", "z"]
    assert note["long"]["key"][3] == "cell type 3" and note["long"]["value"][3] == "CL:0000003"
    np.testing.assert_array_equal(note["counts"], np.array([1, 2], dtype=np.int64), strict=True)
    np.testing.assert_array_equal(note["flags"], np.array([True, False]), strict=True)


def test_names_of_columns_outlive_the_next_result(tmp_path: Path) -> None:
    before = {"key": "X_scpalm_ic50", "columns": {"X_scpalm_ic50": np.array(["Erlotinib"], dtype=object)}}
    note = written(tmp_path, plain_mapping({"key": "X_scpalm", "columns": {"X_two": ["1", "2"]}}), before).uns["scpalm"]
    assert note["key"] == "X_scpalm"
    assert {key: names.tolist() for key, names in note["columns"].items()} == {
        "X_scpalm_ic50": ["Erlotinib"],
        "X_two": ["1", "2"],
    }
    in_memory = plain_mapping({"key": "X_scpalm", "columns": {"X_two": ["1", "2"]}})
    keep_columns(in_memory, before)
    assert_same_plain(in_memory, note)


@pytest.mark.parametrize("earlier", ["old", "[1]", 3, {"columns": "text"}, None])
def test_an_earlier_note_of_another_kind_is_replaced(tmp_path: Path, earlier: Any) -> None:
    note = plain_mapping({"key": "X_scpalm"})
    keep_columns(note, earlier)
    assert note == {"key": "X_scpalm"}
    assert written(tmp_path, note, earlier or {}).uns["scpalm"] == note


def test_columns_behind_a_link_are_not_read(tmp_path: Path) -> None:
    cells = small_counts()
    cells.uns["scpalm"] = {"columns": {"X_mine": np.array(["a"], dtype=object)}}
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        file["uns/scpalm/columns/X_other"] = h5py.SoftLink("/var/_index")
    with H5adWriter(tmp_path / "cells.h5ad") as writer:
        writer.note(plain_mapping({"key": "X_scpalm"}))
    columns = anndata.read_h5ad(tmp_path / "cells.h5ad").uns["scpalm"]["columns"]
    assert {key: names.tolist() for key, names in columns.items()} == {"X_mine": ["a"]}


def test_a_note_of_an_earlier_release_is_read() -> None:
    assert stored_note('{"key": "X_scpalm"}') == {"key": "X_scpalm"}
    with pytest.raises(ValueError, match="mapping"):
        stored_note("[]")
