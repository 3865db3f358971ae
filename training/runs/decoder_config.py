"""Options of the decoder that imputation serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from scpalm.training.runs.config import ConfigError, OptimizerConfig


@dataclass(frozen=True)
class DecoderConfig(OptimizerConfig):
    """The decoder, trained on the frozen codes of stage 1 and on f."""

    steps: int = 600
    lr: float = 1e-3
    warmup_steps: int = 30
    simulated_share: float = 0.2

    # Options of the other stages that have no effect here.
    unused: ClassVar[frozenset[str]] = frozenset({"score_weight"})

    def refuse_ineffective(self, names: Iterable[str]) -> None:
        """As in ``OptimizerConfig``."""
        names = list(names)
        if void := self.unused.intersection(names):
            raise ConfigError(f"{min(void)} has no effect on the decoder: leave it out.")
        super().refuse_ineffective(names)
