"""Train a stage for a given time: the schedule ends when the time does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scpalm.training.runs.run import Run
from scpalm.training.runs.trainer import Progress, StageTrainer

# Reads of scalars whose steps the speed is measured on. Codes start, or a compiler runs, long before as many.
_WINDOW = 16
_EVALUATIONS = 5
_SLACK = 0.05  # seconds


@dataclass(frozen=True)
class Deadlines:
    """When to stop, on the clock ``time.monotonic``.

    Attributes:
        stage: end of the stage, at which its schedule ends, too. call: end of this call, with or without the stage.
    """

    stage: float
    call: float


@dataclass
class _Speed:
    """Seconds a step, over the last reads."""

    reads: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def note(self, step: int, now: float) -> None:
        self.reads.append((step, now))

    def skip(self, seconds: float) -> None:
        """Take time out that was not spent on steps."""
        self.reads = deque([(step, at + seconds) for step, at in self.reads], maxlen=_WINDOW)

    def seconds(self) -> float | None:
        if len(self.reads) < 2:
            return None
        (first, start), (last, end) = self.reads[0], self.reads[-1]
        return (end - start) / (last - first)


class ClockedLoop:
    """Trains until a deadline; evaluates some times on the way, and writes a checkpoint at each and at the end.

    After each read of the scalars, the number of steps is planned again from the speed so far. The learning rate so
    follows its schedule in time. A run by the clock cannot be repeated bit for bit.
    """

    def __init__(
        self,
        trainer: StageTrainer[Any],
        run: Run,
        deadlines: Deadlines,
        progress: Progress = lambda step, scalars: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer, self._run, self._deadlines = trainer, run, deadlines
        self._progress, self._now = progress, now
        self._speed = _Speed()
        self._started = now()
        self._cost = 0.0  # seconds of an evaluation and a checkpoint
        self._next_evaluation = self._started + self._interval
        self._scalars: dict[str, float] = {}

    @property
    def _interval(self) -> float:
        """Seconds between evaluations, which take a tenth of the time at most."""
        return max((self._deadlines.stage - self._started) / _EVALUATIONS, 10 * self._cost)

    def train(self) -> bool:
        """Train; returns whether the stage is finished. Raises RunError and CorpusError."""
        trainer, run = self._trainer, self._run
        curves = run.curves(trainer.stage)
        end = min(self._deadlines.stage, self._deadlines.call)
        step_seconds = 0.0
        try:
            while True:
                trainer.advance()
                if trainer.due_to_read:
                    self._scalars = trainer.read()
                    self._plan()
                    self._progress(trainer.step, self._scalars)
                now = self._now()
                step_seconds = self._speed.seconds() or step_seconds
                if now + trainer.read_every * step_seconds >= end - self._cost:
                    break
                if now >= self._next_evaluation:
                    curves.add(trainer.step, self._evaluate(finished=False))
            # The stage may end with the call, up to rounding.
            finished = self._deadlines.stage <= self._deadlines.call + _SLACK
            curves.add(trainer.step, self._evaluate(finished=finished))
            return finished
        finally:
            trainer.close()
            curves.close()

    def _plan(self) -> None:
        trainer, now = self._trainer, self._now()
        self._speed.note(trainer.step, now)
        seconds = self._speed.seconds()
        if seconds is not None:
            left = max(self._deadlines.stage - now - self._cost * (self._evaluations_left(now) + 1), 0.0)
            trainer.plan(trainer.step + max(int(left / max(seconds, 1e-9)), 1))

    def _evaluations_left(self, now: float) -> int:
        return int(max(self._deadlines.stage - max(now, self._next_evaluation), 0.0) / max(self._interval, 1e-9))

    def _evaluate(self, *, finished: bool) -> dict[str, float]:
        """Evaluate, and save a checkpoint."""
        trainer, start = self._trainer, self._now()
        scalars = trainer.read() | trainer.evaluate() | {"seconds": start - self._started}
        state = trainer.state() | {"ended": finished, "planned": trainer.planned_steps}
        self._run.save_checkpoint(trainer.stage, state)
        self._progress(trainer.step, scalars)
        taken = self._now() - start
        self._cost = max(self._cost, taken)
        self._speed.skip(taken)
        self._next_evaluation = self._now() + self._interval
        return scalars
