from __future__ import annotations

import os
from pathlib import Path

from scpalm.app.storage.memory_limit import memory_limit

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit(folder: Path, own: str, **files: str) -> int:
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "fs" / name.replace("__", "/").replace("_in", ".in").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return memory_limit(folder / "fs", folder / "own")


def test_version_2_takes_the_smallest_limit_around_the_process(tmp_path: Path) -> None:
    files = {"a__memory_max": "2000\n", "a__b__memory_max": "max\n", "memory_max": "max\n"}
    assert limit(tmp_path, "0::/a/b\n", **files) == 2000


def test_version_1_has_a_folder_for_memory(tmp_path: Path) -> None:
    (tmp_path / "fs/memory/a").mkdir(parents=True)
    (tmp_path / "fs/memory/a/memory.limit_in_bytes").write_text("3000\n")
    assert limit(tmp_path, "5:cpu,memory:/a\n1:name=systemd:/a\n") == 3000


def test_in_a_container_the_root_is_the_group_of_the_process(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/outer/name\n", memory_max="4000\n") == 4000


def test_without_a_limit_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/\n", memory_max="max\n") == MACHINE
    assert limit(tmp_path, "") == MACHINE
    assert memory_limit(tmp_path / "none", tmp_path / "none") == MACHINE
