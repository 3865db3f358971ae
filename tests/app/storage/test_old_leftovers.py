"""Temporary folders of releases without locks are removed a day after they were first seen."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scpalm.app.storage.old_leftovers import KEEP_SECONDS, remove_old_leftovers
from scpalm.app.storage.process_folder import ProcessFolder

OLD = ("scpalm-model-ab12_xyz", "scpalm-jobs-k3mn0pq9")
OTHERS = ("scpalm-spool", "scpalm-models", "scpalm-ab12cdef", "scpalm-model-of-mine", "notes")


def make(parent: Path) -> None:
    for name in (*OLD, *OTHERS):
        (parent / name).mkdir()
        (parent / name / "weights").write_bytes(b"content")
        # An old release may have been serving from its folder for weeks.
        os.utime(parent / name, (1, 1))


def test_a_folder_is_removed_a_day_after_it_was_first_seen(tmp_path: Path) -> None:
    make(tmp_path)
    assert remove_old_leftovers(tmp_path) == 0, "its process may live"
    assert remove_old_leftovers(tmp_path) == 0
    assert all((tmp_path / name / "weights").exists() for name in (*OLD, *OTHERS))
    yesterday = time.time() - KEEP_SECONDS - 1
    for name in OLD:
        os.utime(tmp_path / f"{name}-seen", (yesterday, yesterday))
    folder = ProcessFolder(tmp_path)
    assert folder.open() == 2, "at the start of a service"
    folder.close()
    assert {path.name for path in tmp_path.iterdir()} == set(OTHERS)


def test_a_mark_goes_with_its_folder(tmp_path: Path) -> None:
    make(tmp_path)
    remove_old_leftovers(tmp_path)
    (tmp_path / OLD[0] / "weights").unlink()
    (tmp_path / OLD[0]).rmdir()  # its process ended in order
    remove_old_leftovers(tmp_path)
    assert {path.name for path in tmp_path.glob("*-seen")} == {f"{OLD[1]}-seen"}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / OLD[0]).symlink_to(target)
    mark = tmp_path / f"{OLD[0]}-seen"
    mark.touch()
    os.utime(mark, (1, 1))
    assert remove_old_leftovers(tmp_path) == 0 and target.exists()
