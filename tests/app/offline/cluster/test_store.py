from __future__ import annotations

import dataclasses
from pathlib import Path

import anndata
import numpy as np
import pytest

from scpalm.app.offline.cluster.atlas import Atlas, ClusterError
from scpalm.app.offline.cluster.store import AtlasStore, ResultWriter
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.values.declared import AUTO


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    source = tmp_path / "in.h5ad"
    source.touch()
    return Atlas(
        source=source,
        layer=None,
        declared=AUTO,
        bundle=tmp_path,
        manifest="abc",
        model=("fake", "0.1", "abc"),
        num_cells=10,
        width=3,
        coverage=Coverage(5, 4, 4, 4, 0, 0, unmatched=("X",)),
        report=InputReport("counts", "every value is a whole number"),
        task_rows=4,
        release="1",
    )


def values_of(start: int, stop: int) -> np.ndarray:
    return (np.arange(start, stop)[:, None] + np.array([0.0, 0.25, 0.5])).astype(np.float32)


def write(store: AtlasStore, start: int, stop: int) -> None:
    ResultWriter(store.folder).put(start, [f"cell{n}" for n in range(start, stop)], values_of(start, stop))
    store.commit(start, stop)


def test_tasks_are_whole_chunks(atlas: Atlas) -> None:
    assert list(atlas.tasks()) == [(0, 4), (4, 8), (8, 10)]


def test_the_result_is_an_anndata_store(tmp_path: Path, atlas: Atlas) -> None:
    with AtlasStore(tmp_path / "out.zarr", atlas) as store:
        for task in [(8, 10), (0, 4), (4, 8)]:
            write(store, *task)
        store.finish()
    cells = anndata.read_zarr(tmp_path / "out.zarr")
    np.testing.assert_array_equal(cells.obsm["X_scpalm"], values_of(0, 10))
    assert list(cells.obs_names) == [f"cell{n}" for n in range(10)]
    assert cells.uns["scpalm"]["model"] == {"name": "fake", "version": "0.1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.zarr"]
    assert {path.name for path in (tmp_path / "out.zarr").iterdir()} == {"obs", "obsm", "uns", "var", "zarr.json"}


def test_committed_rows_are_read_back_except_for_a_truncated_line(tmp_path: Path, atlas: Atlas) -> None:
    with AtlasStore(tmp_path / "out.zarr", atlas) as store:
        write(store, 4, 8)
    with (tmp_path / "out.zarr.partial" / "scpalm-done.txt").open("a") as ledger:
        ledger.write("8 1")  # of "8 10\n"
    with AtlasStore(tmp_path / "out.zarr", atlas) as store:
        assert store.done == {(4, 8)} and store.rows_done == 4
        store.commit(0, 4)
    with AtlasStore(tmp_path / "out.zarr", atlas) as store:
        assert store.done == {(0, 4), (4, 8)}


def test_a_run_with_a_different_model_or_input_is_not_continued(tmp_path: Path, atlas: Atlas) -> None:
    with AtlasStore(tmp_path / "out.zarr", atlas):
        pass
    with pytest.raises(ClusterError, match="started with a different"):
        AtlasStore(tmp_path / "out.zarr", dataclasses.replace(atlas, manifest="other"))
    atlas.source.write_bytes(b"changed")
    with pytest.raises(ClusterError, match="started with a different"):
        AtlasStore(tmp_path / "out.zarr", atlas)


def test_two_commands_cannot_write_the_same_result(tmp_path: Path, atlas: Atlas) -> None:
    with AtlasStore(tmp_path / "out.zarr", atlas), pytest.raises(ClusterError, match="Another process"):
        AtlasStore(tmp_path / "out.zarr", atlas)


def test_existing_results_are_never_overwritten(tmp_path: Path, atlas: Atlas) -> None:
    for name in ("out.zarr", "out.zarr.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
        with pytest.raises(ClusterError, match=name):
            AtlasStore(tmp_path / "out.zarr", atlas)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["precious"]
        (tmp_path / name / "precious").unlink()
        (tmp_path / name).rmdir()
