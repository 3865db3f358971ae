"""Files of jobs in a folder and in an object store (fsspec's memory file system)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scpalm.app.codecs.result import OutputValues
from scpalm.app.errors import JobStorageError, StorageFullError
from scpalm.app.jobs.files import JobFiles, LocalJobFiles, SpoolJobFiles
from scpalm.app.jobs.store import JobStore
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.storage.spool import Spool, SpoolError
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.spec import outputs_of
from scpalm.model.tasks.embed import Embed
from scpalm.model.tasks.pathways import Pathways
from scpalm.model.tasks.task import Values
from tests.app.fakes import INFO

HEAD = UploadHead(5, Coverage(3, 2, 300, 2, 0, 0, unmatched=("X",)), np.array([0, 1, -1], np.int32), {"drugs": ["a"]})
REPORT = InputReport("counts", "whole numbers")


def found_room(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.fixture(params=["folder", "store"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobFiles:
    if request.param == "folder":
        return LocalJobFiles(tmp_path / "job")
    return SpoolJobFiles(Spool(f"memory://{tmp_path}"), "job")


def test_files_are_stored_listed_and_removed(files: JobFiles, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"cells")
    files.copy_in("body", source)
    for number in (1, 0):
        files.write(f"cells-{number}.json", b"{}")
    assert files.read("body") == b"cells" and files.names("cells-") == ["cells-0.json", "cells-1.json"]
    assert files.has("body") and not files.has("other")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with files.local("body", scratch) as path:
        assert path.read_bytes() == b"cells"
    assert list(scratch.iterdir()) == []
    files.remove()
    files.remove()
    assert not files.has("body")


def test_results_are_read_as_they_were_written(
    files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.jobs.store.CHUNK_ROWS", 2)
    tasks = (Embed(INFO), Pathways(INFO))
    embedding = np.arange(15, dtype=np.float32).reshape(5, 3)
    codes = np.arange(5, dtype=np.int32)[:, None]
    values_of_tasks: tuple[Values, ...] = (embedding, codes)
    files.write("body", b"")
    for number in (2, 0, 1):
        store = JobStore(files)  # each time as another process would
        store.open(tasks, HEAD)
        rows = slice(2 * number, 2 * number + 2)
        names = [f"cell{row}" for row in range(5)][rows]
        outputs = [
            OutputValues(spec, values[rows]) for spec, values in zip(outputs_of(tasks), values_of_tasks, strict=True)
        ]
        store.put(number, outputs, names, REPORT)
    result = JobStore(files).read(("mini", "1", "abc"), tmp_path)
    assert result.cells == [f"cell{row}" for row in range(5)]
    assert result.note["coverage"] == HEAD.coverage.as_dict() | {"counts_matched": None} and result.note["model"] == {
        "name": "mini",
        "version": "1",
    }
    assert [output.spec.key for output in result.outputs] == ["X_scpalm", "X_scpalm_pathways"]
    np.testing.assert_array_equal(result.outputs[0].load(), embedding)
    np.testing.assert_array_equal(result.outputs[1].load(), codes)
    assert result.outputs[1].load().dtype == np.int32


def test_results_of_another_release_are_refused(files: JobFiles, tmp_path: Path) -> None:
    for facts in (b'{"num_cells": 5, "parts": []}', b'{"version": 99, "num_cells": 5}'):
        files.write("facts.json", facts)
        with pytest.raises(JobStorageError, match="another release"):
            JobStore(files).read(("mini", "1", "abc"), tmp_path)


def test_a_missing_file_cannot_be_waited_for(files: JobFiles, tmp_path: Path) -> None:
    with pytest.raises(JobStorageError, match="'body' of this job is gone"):
        files.read("body")
    with pytest.raises(JobStorageError, match="gone"), files.local("body", tmp_path):
        pass


def test_a_failure_of_the_store_is_a_spool_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SpoolJobFiles(Spool(f"memory://{tmp_path}"), "job")
    files.write("body", b"")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("unreachable")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", fail)
    with pytest.raises(SpoolError, match="failed to access a file of a job: unreachable"):
        files.read("body")
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.rm", fail)
    with pytest.raises(SpoolError, match="unreachable"):
        files.remove()  # files that are left must not be forgotten


@pytest.mark.parametrize("room", [0, 200_000], ids=["full at the start", "full midway"])
def test_a_full_disk_leaves_no_part_of_a_file(small_disk: Callable[[int], Path], tmp_path: Path, room: int) -> None:
    disk = small_disk(1 << 20)
    (disk / "others").write_bytes(bytes((1 << 20) - room))
    source = tmp_path / "source"
    source.write_bytes(bytes(500_000))
    files = LocalJobFiles(disk / "job")
    for store in (lambda: files.copy_in("body", source), lambda: files.write("body", source.read_bytes())):
        with pytest.raises(StorageFullError, match="SCPALM_RESULTS_DIR"):
            store()
        assert not list(disk.glob("job/*"))
    (disk / "others").unlink()
    files.copy_in("body", source)
    assert files.read("body") == source.read_bytes()


def test_a_chunk_for_which_there_is_no_room_can_be_written_later(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2 << 20)
    files = LocalJobFiles(disk / "job")
    store = JobStore(files)
    store.open((Embed(INFO),), HEAD)
    (disk / "others").write_bytes(bytes(found_room(disk)))
    outputs = [OutputValues(outputs_of((Embed(INFO),))[0], np.ones((5, 3), np.float32))]
    with pytest.raises(StorageFullError):
        store.put(0, outputs, list("abcde"), REPORT)
    (disk / "others").unlink()
    store.put(0, outputs, list("abcde"), REPORT)
    assert store.read(("mini", "1", "abc"), disk).cells == list("abcde")
