"""Exponential moving average of the weights: less noisy than the last step, and what is evaluated and exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """``average <- decay * average + (1 - decay) * weights`` after every step; buffers are not averaged.

    The decay starts low, ``(1 + t) / (10 + t)``, so that the first weights are forgotten soon.
    """

    def __init__(self, modules: Sequence[nn.Module], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._weights = [p for module in modules for p in module.parameters()]
        self._average = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        self.updates += 1
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, weight in zip(self._average, self._weights, strict=True):
            average.lerp_(weight, rate)

    @torch.no_grad()
    def jump(self, weights: Iterable[Tensor], when: Tensor | None = None) -> None:
        """Set the average of these parameters to their current values: they were replaced, not trained.

        ``when``: a bool on the device; the average stays if it is false.
        """
        chosen = {id(weight) for weight in weights}
        for average, weight in zip(self._average, self._weights, strict=True):
            if id(weight) in chosen:
                average.copy_(weight if when is None else torch.where(when, weight, average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the modules hold the average."""
        own = [p.detach().clone() for p in self._weights]
        self._write(self._average)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)

    def restore(self, average: Sequence[Tensor], updates: int) -> None:
        """Set the average, one tensor per parameter. Raises ValueError for another number of parameters."""
        with torch.no_grad():
            for own, value in zip(self._average, average, strict=True):
                own.copy_(value)
        self.updates = updates
