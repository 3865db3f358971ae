from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scpalm.app.storage import values
from scpalm.app.storage.scratch import ensure_folder, scratch_folder
from scpalm.app.storage.values import SpooledArray, StoredValues, row_blocks, rows_per_block
from tests.loop_lag import LoopLag


def test_small_arrays_stay_in_memory_and_touch_no_disk(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    array = SpooledArray((4, 2), np.float32, folder)
    array.put(2, np.ones((2, 2), np.float32))
    array.put(0, np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(array.finish(), [[0, 0], [0, 0], [1, 1], [1, 1]])
    assert not array.in_file and not folder.exists()


def test_large_arrays_are_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "IN_MEMORY_BYTES", 8)
    expected = np.arange(21, dtype=np.int32).reshape(7, 3)
    array = SpooledArray((7, 3), np.int32, tmp_path)
    for start in (5, 0, 2):
        array.put(start, expected[start : start + 3])
    stored = array.finish()
    assert array.in_file and isinstance(stored, StoredValues)
    copy = StoredValues.from_dict(stored.as_dict())
    np.testing.assert_array_equal(copy.read(2, 5), expected[2:5])
    np.testing.assert_array_equal(np.load(stored.path), expected)
    for step in (1, 3, 7, None):
        np.testing.assert_array_equal(np.concatenate(list(row_blocks(stored, step))), expected)


_FILL = """
import sys
from pathlib import Path
import numpy as np
from scpalm.app.errors import StorageFullError
from scpalm.app.storage.values import SpooledArray

try:
    array = SpooledArray((8 << 20, 1), np.float32, Path(sys.argv[1]))
    for start in range(0, 8 << 20, 1 << 20):
        array.put(start, np.ones((1 << 20, 1), np.float32))
except StorageFullError as error:
    print(error.status, error)
"""


@pytest.mark.parametrize("room", [0, 16 << 20], ids=["full at the start", "full midway"])
def test_a_full_disk_is_an_error_that_leaves_the_process_alive(small_disk: Callable[[int], Path], room: int) -> None:
    disk = small_disk(20 << 20)
    found = os.statvfs(disk)
    (disk / "others").write_bytes(bytes(found.f_bavail * found.f_frsize - room))
    command = [sys.executable, "-c", _FILL, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the process was killed: {done}"
    assert done.stdout.startswith("507 The disk for results (SCPALM_SPOOL_DIR) is full.")


def test_a_scratch_folder_is_removed_without_stopping_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        with LoopLag(asyncio.get_running_loop()):
            async with scratch_folder(tmp_path) as folder:
                ensure_folder(folder)
                for number in range(5000):
                    (folder / str(number)).touch()
                    if number % 50 == 0:
                        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


def test_a_block_is_some_megabytes_and_at_least_one_row() -> None:
    assert rows_per_block(np.zeros((5, 10), np.float32), block_bytes=100) == 2
    assert rows_per_block(np.zeros((5, 10), np.float32), block_bytes=1) == 1
