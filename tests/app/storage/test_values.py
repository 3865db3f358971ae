from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scpalm.app.storage import values
from scpalm.app.storage.scratch import scratch_folder
from scpalm.app.storage.values import SpooledArray, StoredValues, row_blocks, rows_per_block


def test_small_arrays_stay_in_memory_and_touch_no_disk(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        array = SpooledArray((4, 2), np.float32, folder)
        array.put(2, np.ones((2, 2), np.float32))
        array.put(0, np.zeros((2, 2), np.float32))
        np.testing.assert_array_equal(array.finish(), [[0, 0], [0, 0], [1, 1], [1, 1]])
        assert not array.in_file and not folder.exists()


def test_large_arrays_are_a_file_until_the_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "IN_MEMORY_BYTES", 8)
    expected = np.arange(21, dtype=np.int32).reshape(7, 3)
    with scratch_folder(tmp_path) as folder:
        array = SpooledArray((7, 3), np.int32, folder)
        for start in (5, 0, 2):
            array.put(start, expected[start : start + 3])
        stored = array.finish()
        assert array.in_file and isinstance(stored, StoredValues)
        copy = StoredValues.from_dict(stored.as_dict())
        np.testing.assert_array_equal(copy.read(2, 5), expected[2:5])
        np.testing.assert_array_equal(np.load(stored.path), expected)
        for step in (1, 3, 7, None):
            np.testing.assert_array_equal(np.concatenate(list(row_blocks(stored, step))), expected)
    assert list(tmp_path.iterdir()) == []


def test_a_block_is_some_megabytes_and_at_least_one_row() -> None:
    assert rows_per_block(np.zeros((5, 10), np.float32), block_bytes=100) == 2
    assert rows_per_block(np.zeros((5, 10), np.float32), block_bytes=1) == 1
