"""The last step of a request: what needs all cells, and how it is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from scpalm.app.codecs.result import OutputValues
from scpalm.app.errors import InferenceError
from scpalm.app.execution.conclusion import concluded, in_thread
from scpalm.model.layout.process import LayoutError
from scpalm.model.sessions.session import Encoded, Session
from scpalm.model.tasks.task import BoundTask, OutputSpec, Values


class Ranks(BoundTask):
    """The rank of each cell among all; waits until it is stopped if ``waits``."""

    name = "ranks"
    concludes = True

    def __init__(self, *, waits: bool = False) -> None:
        self.outputs = (
            OutputSpec("ranks", "rank", 1, np.int32, placement="obs"),
            OutputSpec("ranks_value", "value", 1, hidden=True),
        )
        self.waits, self.started, self.stopped = waits, threading.Event(), threading.Event()

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        raise NotImplementedError

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        self.started.set()
        if self.waits:
            self.stopped.wait(20)
            raise LayoutError("The layout was cancelled.")
        rank = np.argsort(np.argsort(values["ranks_value"][:, 0])).astype(np.int32)
        first, second = self.outputs
        self.outputs = (OutputSpec(first.name, first.key, 1, np.int32, placement="obs", categories=("a", "b")), second)
        return {"ranks": rank[:, None]}

    def stop(self) -> None:
        self.stopped.set()


def outputs_of(task: BoundTask) -> tuple[OutputValues, ...]:
    ranks, value = task.outputs
    return OutputValues(ranks, np.zeros((2, 1), np.int32)), OutputValues(value, np.array([[3.0], [1.0]], np.float32))


def test_hidden_outputs_are_left_out_and_categories_may_come_late() -> None:
    task = Ranks()
    (found,) = concluded([task], outputs_of(task))
    assert found.spec.name == "ranks" and found.spec.categories == ("a", "b")
    assert found.load().tolist() == [[1], [0]]


def test_a_failed_layout_is_an_error_of_the_service() -> None:
    task = Ranks(waits=True)
    task.stop()
    with pytest.raises(InferenceError, match="cancelled"):
        concluded([task], outputs_of(task))


def test_a_cancelled_request_stops_its_conclusion() -> None:
    async def run() -> None:
        task = Ranks(waits=True)
        running = asyncio.create_task(in_thread([task], lambda: concluded([task], outputs_of(task))))
        await asyncio.to_thread(task.started.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert task.stopped.is_set()

    asyncio.run(run())
