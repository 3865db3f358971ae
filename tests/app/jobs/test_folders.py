from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from scpalm.app.jobs.folders import JobFolders, LocalJobFolders, SpoolJobFolders
from scpalm.app.storage.spool import Spool


@pytest.fixture(params=["folder", "store"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> JobFolders:
    if request.param == "folder":
        return LocalJobFolders(tmp_path / "jobs")
    return SpoolJobFolders(Spool(f"memory://{tmp_path}"))


def test_folders_are_found_by_their_age(folders: JobFolders) -> None:
    assert folders.older_than(0.0) == [], "there may be no folder yet"
    names = sorted(uuid4().hex for _ in range(2))
    for name in [*names, "not-a-job"]:
        folders.of(name).write("body", b"cells")
    assert sorted(folders.older_than(0.0)) == names
    assert folders.older_than(3600.0) == []
