"""Background tasks that must keep running: a failure is logged and counted, and the task starts again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

log = logging.getLogger("scpalm.tasks")

# A task that failed starts again after this pause. The pause doubles, up to the longest, while the task keeps failing.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")
Beat = Callable[[], None]
Loop = Callable[[Beat], Awaitable[None]]


class TaskSupervisor:
    """Runs the background tasks of a process. One that raises is logged, counted and started again after a pause.

    A task gets a function ``beat`` and calls it after each successful round, which ends the report of a failure.

    Args:
        on_failure: called with the name of a task that has failed.
        first_pause: seconds before the first restart.

    Example:
        >>> async def poll(beat):
        ...     while True:
        ...         await look()
        ...         beat()
        >>> tasks.start("poll", poll)
    """

    def __init__(
        self, on_failure: Callable[[str], object] = lambda name: None, *, first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._on_failure = on_failure
        self._first_pause = first_pause
        self._numbers = itertools.count()
        self._faults: dict[int, tuple[str, str]] = {}

    @property
    def faults(self) -> dict[str, str]:
        """What keeps tasks from working now, by their names. Empty while all of them work."""
        return dict(list(self._faults.values()))

    def start(self, name: str, loop: Loop) -> asyncio.Task[None]:
        """Run a task until it returns, or is cancelled with `cancel_until_done`. Needs a running event loop."""
        return asyncio.create_task(self._supervise(name, loop), name=name)

    async def _supervise(self, name: str, loop: Loop) -> None:
        number, pause = next(self._numbers), self._first_pause

        def beat() -> None:
            nonlocal pause
            pause = self._first_pause
            if self._faults.pop(number, None) is not None:
                log.info("background task %s works again", name)

        try:
            while True:
                try:
                    await loop(beat)
                    return
                # A cancelled command inside the task may raise CancelledError, too; that is a failure like any other.
                except (Exception, asyncio.CancelledError) as error:
                    if _is_cancelled():
                        raise asyncio.CancelledError from error
                    self.note_failure(name, error, f"starts again in {pause:g} s")
                    self._faults[number] = (name, _line(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            self._faults.pop(number, None)

    def note_failure(self, name: str, error: BaseException, outcome: str) -> None:
        """Log and count a failure. Also for threads, which restart themselves."""
        log.error("background task %s failed (%s) and %s", name, _line(error), outcome, exc_info=error)
        self._on_failure(name)

    @contextmanager
    def waiting(self, name: str, reason: str) -> Iterator[None]:
        """Report that a task waits for something, such as room on a disk, within this context."""
        number = next(self._numbers)
        self._faults[number] = (name, reason)
        try:
            yield
        finally:
            del self._faults[number]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


async def cancel_until_done(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, repeatedly if needed, until all of them have ended.

    A Redis client that is cancelled while it waits for a reply may raise a connection error instead of
    CancelledError. The task then treats it as an outage and keeps running.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not stop halfway: a cancellation is raised only after the work has ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        task.exception()  # mark it as retrieved
        raise cancelled
    return task.result()
