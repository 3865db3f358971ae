"""Files of jobs in a folder and in an object store (fsspec's memory file system)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scpalm.app.codecs.result import OutputValues
from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.files import JobFiles, LocalJobFiles, SpoolJobFiles
from scpalm.app.jobs.store import JobStore
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.storage.spool import Spool, SpoolError
from scpalm.model.genes.align import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.spec import outputs_of
from scpalm.model.tasks.embed import Embed
from scpalm.model.tasks.pathways import Pathways
from scpalm.model.tasks.task import Values
from tests.app.fakes import INFO

HEAD = UploadHead(5, Coverage(3, 2, 300, 2, 0, 0, unmatched=("X",)), np.array([0, 1, -1], np.int32), {"drugs": ["a"]})
REPORT = InputReport("counts", "whole numbers")


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
    result = JobStore(files).read(("mini", "1"), tmp_path)
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
            JobStore(files).read(("mini", "1"), tmp_path)


def test_a_failure_of_the_store_is_a_spool_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="failed to access a file of a job"):
        SpoolJobFiles(Spool(f"memory://{tmp_path}"), "none").read("body")
