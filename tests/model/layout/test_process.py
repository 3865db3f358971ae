"""The process of a layout gives the numbers of a direct call, can be stopped, and ends with its work."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from scpalm.model.layout.layout import LayoutOptions, lay_out
from scpalm.model.layout.process import LayoutError, LayoutProcess
from tests.model.layout.test_layout import groups


def test_the_process_gives_the_numbers_of_a_direct_call() -> None:
    embedding, _ = groups(200)
    shares: list[float] = []
    found = LayoutProcess(LayoutOptions(), progress=shares.append).compute(embedding)
    expected = lay_out(embedding, LayoutOptions())
    assert found.positions.tobytes() == expected.positions.tobytes()
    assert found.clusters.tobytes() == expected.clusters.tobytes()
    assert found.num_laid_out == 200
    assert 0 < shares[0] < shares[-1] <= 1


def test_a_running_layout_can_be_stopped() -> None:
    started = threading.Event()
    process = LayoutProcess(LayoutOptions(), progress=lambda _: started.set())

    def stop() -> None:
        started.wait()
        process.stop()

    threading.Thread(target=stop).start()
    with pytest.raises(LayoutError, match="cancelled"):
        process.compute(groups(7_000)[0])
    with pytest.raises(LayoutError, match="cancelled"):
        process.compute(groups(10)[0])


def test_a_layout_has_a_time_limit() -> None:
    with pytest.raises(LayoutError, match=r"longer than 0\.01 s"):
        LayoutProcess(LayoutOptions(), seconds=0.01).compute(groups(5_000)[0])


def test_faulty_input_ends_the_process() -> None:
    with pytest.raises(LayoutError, match="died"):
        LayoutProcess(LayoutOptions()).compute(np.full((50, 4), np.nan, np.float32))
