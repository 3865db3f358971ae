from __future__ import annotations

import asyncio
import logging

import pytest

from scpalm.app.background import Beat, TaskSupervisor, cancel_until_done, completed
from tests.app.queue.conftest import run, until


def test_a_loop_that_swallows_its_cancellation_still_ends() -> None:
    """A Redis client that is cancelled in the middle of a reply swallows the cancellation."""

    async def loop(swallowed: int) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed == 0:
                    raise
                swallowed -= 1

    async def scenario() -> None:
        tasks = [asyncio.create_task(loop(number)) for number in (0, 1, 2)]
        await asyncio.sleep(0)
        await cancel_until_done(tasks)
        assert all(task.cancelled() for task in tasks)

    run(scenario())


def test_a_task_that_fails_is_reported_and_starts_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        failed: list[str] = []
        may_work = asyncio.Event()
        rounds = 0

        async def loop(beat: Beat) -> None:
            nonlocal rounds
            while True:
                if not may_work.is_set():
                    raise OSError(28, "No space left\non device")
                rounds += 1
                beat()
                await asyncio.sleep(0)

        tasks = TaskSupervisor(failed.append, first_pause=0.001)
        task = tasks.start("jobs", loop)
        await until(lambda: len(failed) > 2)
        assert tasks.faults == {"jobs": "[Errno 28] No space left on device"}
        may_work.set()
        await until(lambda: rounds > 2)
        assert not tasks.faults and not task.done()
        await cancel_until_done([task])

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert "background task jobs failed ([Errno 28] No space left on device) and starts again" in caplog.text
    assert "background task jobs works again" in caplog.text


def test_a_cancelled_command_inside_a_task_does_not_end_it() -> None:
    async def scenario() -> None:
        starts = 0

        async def loop(beat: Beat) -> None:
            nonlocal starts
            starts += 1
            command = asyncio.ensure_future(asyncio.sleep(60))
            command.cancel()
            await command

        tasks = TaskSupervisor(first_pause=0.001)
        task = tasks.start("jobs", loop)
        await until(lambda: starts > 2)
        await cancel_until_done([task])
        assert not tasks.faults, "a task that was stopped is not at fault"

    run(scenario())


def test_what_tasks_wait_for_is_reported() -> None:
    tasks = TaskSupervisor()
    with tasks.waiting("jobs", "The disk is full."), tasks.waiting("jobs", "The disk is full."):
        assert tasks.faults == {"jobs": "The disk is full."}
    assert tasks.faults == {}


def test_work_that_must_not_stop_halfway_ends_before_its_cancellation() -> None:
    async def scenario() -> None:
        steps: list[str] = []
        started, may_end = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            started.set()
            await may_end.wait()
            steps.append("ended")

        async def caller() -> None:
            try:
                await completed(work())
            finally:
                steps.append("caller")

        task = asyncio.create_task(caller())
        await started.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not steps
        may_end.set()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() and steps == ["ended", "caller"]

    run(scenario())
