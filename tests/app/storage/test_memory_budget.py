from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from scpalm.app.errors import QueueFullError
from scpalm.app.storage.memory_budget import MemoryBudget, ReadAhead
from scpalm.app.storage.values import ResultSpace


def test_reservations_are_released_and_refused_over_the_limit() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(60):
        with pytest.raises(QueueFullError) as caught, budget.reserve(50):
            pass
        assert caught.value.retry_after and "SCPALM_MAX_MEMORY_BYTES" in caught.value.detail
        with budget.reserve(40):
            assert budget.used == 100
    assert budget.used == 0


def test_a_request_of_any_size_is_admitted_alone() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(1000):
        assert budget.used == 1000


def test_an_array_counts_until_its_last_view_is_gone() -> None:
    budget = MemoryBudget(1 << 20)
    array = np.frombuffer(bytes(800), np.float32).reshape(10, 20)
    budget.track(array)
    assert budget.used == 800
    view = array[2:4][:, 1:]
    del array
    assert budget.used == 800
    del view
    assert budget.used == 0


def test_bytes_count_until_they_are_freed() -> None:
    budget = MemoryBudget(100)
    content = budget.counted(memoryview(b"0123456789"))
    assert content == b"0123456789" and budget.used == 10
    del content
    assert budget.used == 0


def test_a_reader_waits_until_others_free_memory() -> None:
    budget = MemoryBudget(100)
    first, second = ReadAhead(budget), ReadAhead(budget)
    held = [np.zeros(80, np.uint8), np.zeros(40, np.uint8)]
    first.add(held[0], 80)
    second.add(held[1], 40)  # it holds nothing yet, so it may go on
    added = threading.Event()

    def add() -> None:
        second.add(np.zeros(40, np.uint8), 40)
        added.set()

    thread = threading.Thread(target=add)
    thread.start()
    assert not added.wait(0.05)
    del held[0]
    assert added.wait(5)
    thread.join()


def test_a_reader_that_alone_holds_memory_goes_on() -> None:
    budget = MemoryBudget(100)
    reader, arrays = ReadAhead(budget), [np.zeros(80, np.uint8) for _ in range(3)]
    for array in arrays:
        reader.add(array, 80)
    assert budget.used == 240
    arrays.clear()
    del array
    assert budget.used == 0


def test_a_stopped_reader_does_not_wait() -> None:
    budget = MemoryBudget(100)
    other, reader = ReadAhead(budget), ReadAhead(budget)
    arrays = [np.zeros(90, np.uint8) for _ in range(3)]
    other.add(arrays[0], 90)
    reader.add(arrays[1], 90)
    thread = threading.Thread(target=reader.add, args=(arrays[2], 90))
    thread.start()
    reader.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_results_that_do_not_fit_go_to_a_file(tmp_path: Path) -> None:
    budget = MemoryBudget(1000)
    space = ResultSpace(tmp_path, budget)
    first = space.array((100, 2), np.float32)
    assert not first.in_file and budget.used == 800
    assert space.array((100, 2), np.float32).in_file
    del first
    assert budget.used == 0
    assert not space.array((100, 2), np.float32).in_file
