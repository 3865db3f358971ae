"""Real processes: what `--cluster` gives is what one process gives, whatever happens to the workers."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest
from distributed import LocalCluster
from numpy.typing import NDArray

import scpalm.app.offline.cluster.driver as driver
from scpalm.app.offline.cluster.atlas import Atlas, ClusterError
from scpalm.app.offline.cluster.driver import embed_atlas
from scpalm.app.offline.files import process_file
from scpalm.app.serving.runtime import open_runtime
from scpalm.app.tasks.task import Embed
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError

TASK_ROWS = 16  # of 100 cells: 7 tasks


@pytest.fixture(scope="module")
def source(real_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "cells.h5ad"
    real_cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def one_process(source: Path) -> NDArray[np.float32]:
    bundle = Bundle.load()
    session = open_runtime(bundle)
    target = source.with_name("single.h5ad")
    process_file(source, target, bundle, session, lambda *_: (Embed(session.info),))
    values: NDArray[np.float32] = anndata.read_h5ad(target).obsm["X_scpalm"]
    return values


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def kill_a_worker() -> None:
    workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)


def test_stopped_gone_on_with_and_a_worker_killed_the_result_is_that_of_one_process(
    tmp_path: Path, source: Path, one_process: NDArray[np.float32]
) -> None:
    out = tmp_path / "out.zarr"
    parts: list[int] = []

    def stop_after_two(num_cells: int) -> None:
        parts.append(num_cells)
        if len(parts) == 3:  # the first tells what was there before: nothing
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(ClusterError, match=r"the same command goes on from there"):
        embed_atlas(source, out, Bundle.load(), processes=1, task_rows=TASK_ROWS, on_chunk=stop_after_two)
    assert not out.exists() and parts[0] == 0

    again: list[int] = []

    def kill_at_first(num_cells: int) -> None:
        again.append(num_cells)
        if len(again) == 2:
            kill_a_worker()

    embed_atlas(source, out, Bundle.load(), processes=2, task_rows=TASK_ROWS, on_chunk=kill_at_first)
    assert again[0] >= 2 * TASK_ROWS and sum(again) == 100, "what was kept was computed again, or rows were lost"
    result = anndata.read_zarr(out)
    np.testing.assert_array_equal(result.obsm["X_scpalm"], one_process)
    assert list(result.obs_names) == list(anndata.read_h5ad(source).obs_names)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_cluster_at_an_address_reads_either_format(
    tmp_path: Path, source: Path, one_process: NDArray[np.float32], address: str, kind: str
) -> None:
    store = source
    if kind == "zarr":
        store = tmp_path / "in.zarr"
        anndata.read_h5ad(source).write_zarr(store)
    embed_atlas(store, tmp_path / "out.zarr", Bundle.load(), address=address, task_rows=TASK_ROWS)
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "out.zarr").obsm["X_scpalm"], one_process)


def test_a_bad_cell_far_on_is_named_and_what_was_done_is_kept(
    tmp_path: Path, real_cells: anndata.AnnData, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer cells are looked at before the work begins, so that it is a worker that finds the fault.
    monkeypatch.setattr("scpalm.app.offline.cluster.atlas.CHUNK_CELLS", 16)
    cells = real_cells.copy()
    cells.X[99, cells.X[99].indices[0]] = -1
    cells.write_h5ad(tmp_path / "bad.h5ad")
    done: list[int] = []
    with pytest.raises(InputError, match=str(cells.obs_names[99])):
        embed_atlas(
            tmp_path / "bad.h5ad",
            tmp_path / "out.zarr",
            Bundle.load(),
            address=address,
            task_rows=TASK_ROWS,
            on_chunk=done.append,
        )
    assert sum(done) > 0 and [path.name for path in tmp_path.glob("out*")] == ["out.zarr.partial"]


def test_a_worker_of_another_release_or_model_is_refused(
    tmp_path: Path, source: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Atlas.of
    atlas = real(source, Bundle.load(), layer=None, declared="auto", task_rows=TASK_ROWS)
    for name, other, words in (
        ("release", dataclasses.replace(atlas, release="other"), "this command is other"),
        ("manifest", dataclasses.replace(atlas, manifest="other"), "another model"),
    ):
        monkeypatch.setattr(Atlas, "of", lambda *args, _other=other, **more: _other)
        with pytest.raises(ClusterError, match=words):
            embed_atlas(source, tmp_path / f"{name}.zarr", Bundle.load(), address=address, task_rows=TASK_ROWS)


def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_PATIENCE", 0.5)
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        embed_atlas(source, tmp_path / "out.zarr", Bundle.load(), address="tcp://127.0.0.1:9")
