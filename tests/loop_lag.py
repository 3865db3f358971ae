"""Finds what blocks an event loop."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
import traceback
from types import TracebackType

LONGEST_SECONDS = 0.1
_LOOK_SECONDS = 0.01


class LoopLag:
    """A context in which an event loop must never stand still for LONGEST_SECONDS, or AssertionError is raised.

    A thread looks at the loop. Time in which that thread itself was late does not count, because then the machine is
    busy with something else.

    Attributes:
        longest: longest standstill so far, in seconds.
        culprit: what the loop's thread did during a standstill that was too long.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._beats = 0
        self._thread_id = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="loop-lag", daemon=True)
        self.longest = 0.0
        self.culprit = ""

    def __enter__(self) -> LoopLag:
        self._loop.call_soon_threadsafe(self._beat)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # A loop that is watched from within cannot beat while this waits, so the thread may end later.
        self._watcher.join(0 if threading.get_ident() == self._thread_id else 5)
        if error is None:
            assert not self.culprit, f"the event loop stood still for {self.longest:.2f} s in:\n{self.culprit}"

    def _beat(self) -> None:
        self._thread_id = threading.get_ident()
        self._beats += 1
        if not self._over.is_set():
            self._loop.call_later(_LOOK_SECONDS / 2, self._beat)

    def _watch(self) -> None:
        seen, stood, looked = self._beats, 0.0, time.monotonic()
        while not self._over.wait(_LOOK_SECONDS):
            now = time.monotonic()
            took, looked = now - looked, now
            if self._beats != seen or not self._thread_id:
                seen, stood = self._beats, 0.0
                continue
            stood += min(took, 2 * _LOOK_SECONDS)
            if stood > LONGEST_SECONDS and not self.culprit:
                frame = sys._current_frames().get(self._thread_id)
                if frame is not None and frame.f_code.co_filename == selectors.__file__:
                    continue  # it waits for events, and the machine is late to wake it
                self.longest = stood
                self.culprit = "".join(traceback.format_stack(frame)) if frame is not None else "a thread that ended"
