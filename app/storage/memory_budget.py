"""One budget for the memory that requests take in this process. Thread-safe.

Arrays are counted until they are freed, so that no path can forget to give memory back.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.app.errors import QueueFullError

RETRY_SECONDS = 2
# How often a waiting reader looks whether it was stopped.
_LOOK_SECONDS = 0.1
# Parsers may take half of all memory, requests in the service a quarter. The rest is for the model and for libraries.
_PARSER_SHARE, _REQUEST_SHARE = 0.5, 0.25


def parser_bytes(memory_bytes: int, num_processes: int) -> int:
    """Memory that each of this many parser processes may take."""
    return int(memory_bytes * _PARSER_SHARE / num_processes)


def request_bytes(memory_bytes: int) -> int:
    """Memory that the requests may take in the service."""
    return int(memory_bytes * _REQUEST_SHARE)


class MemoryBudget:
    """Counts the bytes that requests hold.

    Args:
        limit: most bytes of all requests together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        # Reentrant, because the garbage collector may free an array while this thread holds the lock.
        self._changed = threading.Condition(threading.RLock())

    @property
    def limit(self) -> int:
        """Most bytes of all requests together."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    def fits(self, num_bytes: int) -> bool:
        """Whether this many more bytes stay within the limit."""
        return self._used + num_bytes <= self.limit

    @contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Hold bytes for a request. While nothing is held, a request of any size is admitted.

        Raises QueueFullError.
        """
        with self._changed:
            if self._used and not self.fits(num_bytes):
                raise QueueFullError(
                    f"The requests in progress take {self._used >> 20} MiB of the {self.limit >> 20} MiB for them "
                    f"(SCPALM_MAX_MEMORY_BYTES). Try again in {RETRY_SECONDS} s.",
                    retry_after=RETRY_SECONDS,
                )
            self._used += num_bytes
        try:
            yield
        finally:
            self._release(num_bytes)

    def track(self, array: NDArray[Any], num_bytes: int | None = None) -> None:
        """Count an array until it and all its views are freed. ``num_bytes``: default, its size."""
        num_bytes = array.nbytes if num_bytes is None else num_bytes
        while isinstance(array.base, np.ndarray):
            array = array.base
        with self._changed:
            self._used += num_bytes
        weakref.finalize(array, self._release, num_bytes).atexit = False

    def counted(self, content: bytes | memoryview) -> bytes:
        """A copy of ``content`` that counts until it is freed."""
        copy = _CountedBytes(content)
        copy.token = np.empty(0)
        self.track(copy.token, len(copy))
        return copy

    def _release(self, num_bytes: int) -> None:
        with self._changed:
            self._used -= num_bytes
            self._changed.notify_all()


class _CountedBytes(bytes):
    """Bytes cannot have weak references, so they carry an array that is freed with them."""

    token: NDArray[Any]


class ReadAhead:
    """What one reader has read and the service still holds. It waits while the budget is used up by others.

    Args:
        budget: the budget of the process.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held = MemoryBudget(budget.limit)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let `add` return at once from now on."""
        self._stopped.set()

    def add(self, array: NDArray[Any], num_bytes: int) -> None:
        """Count an array that was read. Blocks until it fits, or this reader holds nothing, or others hold nothing.

        The exceptions let every reader go on: what it holds is freed when the device is done with it.
        """
        budget = self._budget
        with budget._changed:
            while not (self._stopped.is_set() or budget.fits(num_bytes) or self._may_exceed()):
                budget._changed.wait(_LOOK_SECONDS)
            budget.track(array, num_bytes)
        self._held.track(array, num_bytes)

    def _may_exceed(self) -> bool:
        return self._held.used in (0, self._budget.used)
