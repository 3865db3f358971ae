from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scpalm.app.storage.process_folder import ProcessFolder

_OPEN = """
import sys, time
from pathlib import Path
from scpalm.app.storage.process_folder import ProcessFolder
folder = ProcessFolder(Path(sys.argv[1]))
folder.open()
(folder.path / "body").write_bytes(b"cells")
print(folder.path, flush=True)
time.sleep(60)
"""


def test_the_folder_of_a_living_process_is_kept_and_that_of_a_killed_one_removed(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    with subprocess.Popen([sys.executable, "-c", _OPEN, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        other = Path(child.stdout.readline().strip())
        first = ProcessFolder(tmp_path)
        assert first.open() == 0 and (other / "body").exists()
        child.kill()
    second = ProcessFolder(tmp_path)
    assert second.open() == 1 and not other.exists() and first.path.exists()
    for folder in (first, second):
        folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["others"]


def test_a_lock_without_a_folder_is_removed_when_it_is_old(tmp_path: Path) -> None:
    new, old = tmp_path / "scpalm-process-new-lock", tmp_path / "scpalm-process-old-lock"
    for lock in (new, old):
        lock.touch()
    os.utime(old, (1, 1))
    folder = ProcessFolder(tmp_path)
    folder.open()
    assert new.exists() and not old.exists()
    folder.close()
