"""`--cluster` with real processes gives the result of one process, even if workers are killed."""

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
from scpalm.app.offline.cluster.driver import ClusterOptions, embed_atlas
from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.errors import InputError
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.spec import RequestSpec
from tests.model.recorded_progress import RecordedProgress

TASK_ROWS = 16  # of 100 cells: 7 tasks


@pytest.fixture(scope="module")
def source(real_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "cells.h5ad"
    real_cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def one_process(source: Path) -> NDArray[np.float32]:
    cells = anndata.read_h5ad(source)
    load().embed(cells)
    values: NDArray[np.float32] = cells.obsm["X_scpalm"]
    return values


def run(
    source: Path, out: Path, progress: Progress | None = None, address: str | None = None, processes: int | None = None
) -> None:
    options = ClusterOptions(address, processes, TASK_ROWS)
    embed_atlas(source, out, Bundle.load(), RequestSpec(("embed",)), options, progress or NoProgress())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def kill_a_worker() -> None:
    workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)


def test_an_interrupted_run_with_a_killed_worker_gives_the_result_of_one_process(
    tmp_path: Path, source: Path, one_process: NDArray[np.float32]
) -> None:
    out = tmp_path / "out.zarr"

    def stop_after_two() -> None:
        if len(first.advanced) == 3:  # the first of these is what was there before: nothing
            os.kill(os.getpid(), signal.SIGTERM)

    first = RecordedProgress(stop_after_two)
    with pytest.raises(ClusterError, match=r"Run the same command to continue"):
        run(source, out, first, processes=1)
    assert not out.exists() and first.advanced[0] == 0

    def kill_at_first() -> None:
        if len(again.advanced) == 2:
            kill_a_worker()

    again = RecordedProgress(kill_at_first)
    run(source, out, again, processes=2)
    assert again.advanced[0] >= 2 * TASK_ROWS and sum(again.advanced) == 100, (
        "finished rows were computed again, or rows were lost"
    )
    result = anndata.read_zarr(out)
    np.testing.assert_array_equal(result.obsm["X_scpalm"], one_process)
    assert list(result.obs_names) == list(anndata.read_h5ad(source).obs_names)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_cluster_at_an_address_reads_h5ad_and_zarr(
    tmp_path: Path, source: Path, one_process: NDArray[np.float32], address: str, kind: str
) -> None:
    store = source
    if kind == "zarr":
        store = tmp_path / "in.zarr"
        anndata.read_h5ad(source).write_zarr(store)
    run(store, tmp_path / "out.zarr", address=address)
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "out.zarr").obsm["X_scpalm"], one_process)


def test_a_late_invalid_cell_is_named_and_finished_rows_are_kept(
    tmp_path: Path, real_cells: anndata.AnnData, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer cells are looked at before the work begins, so that it is a worker that finds the fault.
    monkeypatch.setattr("scpalm.app.offline.cluster.atlas.CHUNK_CELLS", 16)
    cells = real_cells.copy()
    cells.X[99, cells.X[99].indices[0]] = -1
    cells.write_h5ad(tmp_path / "bad.h5ad")
    progress = RecordedProgress()
    with pytest.raises(InputError, match=str(cells.obs_names[99])):
        run(tmp_path / "bad.h5ad", tmp_path / "out.zarr", progress, address)
    assert sum(progress.advanced) > 0 and [path.name for path in tmp_path.glob("out*")] == ["out.zarr.partial"]


def test_a_worker_of_another_release_or_model_is_refused(
    tmp_path: Path, source: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Atlas.of
    atlas = real(source, Bundle.load(), RequestSpec(("embed",)), TASK_ROWS)
    for name, other, words in (
        ("release", dataclasses.replace(atlas, release="other"), "this command is other"),
        ("manifest", dataclasses.replace(atlas, manifest="other"), "different model"),
    ):
        monkeypatch.setattr(Atlas, "of", lambda *args, _other=other, **more: _other)
        with pytest.raises(ClusterError, match=words):
            run(source, tmp_path / f"{name}.zarr", address=address)


def test_an_unreachable_scheduler_is_an_error_with_its_address(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run(source, tmp_path / "out.zarr", address="tcp://127.0.0.1:9")
