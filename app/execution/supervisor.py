"""Keeps a worker alive: renews its leases, and starts a new worker when it has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from scpalm.app.background import Beat, TaskSupervisor, cancel_until_done
from scpalm.app.execution.worker import Worker
from scpalm.app.queue.transport import LEASE_SECONDS, RENEWALS_PER_LEASE

log = logging.getLogger("scpalm.worker")

CHECK_SECONDS = 0.25
# A worker that dies at once is restarted after ever longer pauses, up to this one; liveness fails meanwhile.
LONGEST_PAUSE_SECONDS = 30.0


class Supervisor:
    """Watches the worker of one device from the event loop.

    Attributes:
        restarts: how often a dead worker was replaced.
    """

    def __init__(
        self,
        make_worker: Callable[[], Worker],
        tasks: TaskSupervisor | None = None,
        *,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._make_worker = make_worker
        self._tasks = tasks or TaskSupervisor()
        self._check_seconds = check_seconds
        self._pause = check_seconds
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self.restarts = 0

    def start(self) -> None:
        """Start the worker and the watch over it. Needs a running event loop."""
        self._worker = self._make_worker()
        self._worker.start()
        self._task = self._tasks.start("supervisor", self._watch)

    def alive(self, stall_seconds: float) -> bool:
        """Whether both loops of the worker run and moved within ``stall_seconds``."""
        return self._worker is not None and self._worker.alive and self._worker.stalled_seconds() < stall_seconds

    async def stop(self) -> None:
        """End the watch, then the worker after its running batch."""
        if self._task is not None:
            await cancel_until_done([self._task])
            # A cancelled task refers to its frames, and so to this object and the session. Without that cycle, the
            # memory of a replaced model is free at once.
            self._task = None
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop)
            self._worker = None

    async def _watch(self, beat: Beat) -> None:
        since_renewal = 0.0
        while True:
            await asyncio.sleep(self._check_seconds)
            if self._worker is not None and self._worker.alive:
                since_renewal += self._check_seconds
                if since_renewal >= LEASE_SECONDS / RENEWALS_PER_LEASE:
                    since_renewal = 0.0
                    self._worker.renew()
                beat()
                continue
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self.restarts += 1
            log.error("restarting the worker (restart %d)", self.restarts)
            self._worker = self._make_worker()
            self._worker.start(resume=True)
