"""Scalars of training steps, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scpalm.training.runs.run import check_finite


@dataclass(frozen=True)
class _Step:
    number: int
    names: tuple[str, ...]
    values: Tensor  # one per name, then the number to check
    known: dict[str, float]


class Scalars:
    """Collects the scalars of steps without waiting for the device.

    A GPU runs behind the host. Reading a number makes the host wait until the GPU has caught up, and then the GPU waits
    for the host's next kernels. So all numbers since the last read are read together, in one transfer.
    """

    def __init__(self) -> None:
        self._unread: list[_Step] = []
        self._last: dict[str, float] = {}

    def __len__(self) -> int:
        """Number of steps that are not read yet."""
        return len(self._unread)

    def add(self, step: int, values: Mapping[str, Tensor], check: Tensor, known: Mapping[str, float]) -> None:
        """Keep the scalars of a step.

        Args:
            values: 0-d tensors on the device. check: 0-d, not finite if the step failed. known: numbers on the host.
        """
        stacked = torch.stack([*(value.float() for value in values.values()), check.float()])
        self._unread.append(_Step(step, tuple(values), stacked, dict(known)))

    def read(self) -> dict[str, float]:
        """The scalars of the last step. Raises RunError that names the first step that was not finite."""
        if not self._unread:
            return dict(self._last)
        steps, self._unread = self._unread, []
        numbers = iter(torch.cat([step.values for step in steps]).tolist())
        for step in steps:
            self._last = {name: next(numbers) for name in step.names} | step.known
            check_finite(next(numbers), step.number)
        return dict(self._last)
