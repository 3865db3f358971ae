"""Options of the view head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from scpalm.training.runs.config import (
    ConfigError,
    OptimizerConfig,
    require_at_least,
    require_positive,
    require_share,
)


@dataclass(frozen=True)
class ViewsConfig(OptimizerConfig):
    """The view head.

    Attributes:
        temperature: of InfoNCE. reconstruction: weight of decoding f from the head's output.
        labels: whether cells with the same label in a data set, or of the same simulated profile, are positives.
        mixed_share: share of batches that mix data sets, with Cell Ontology types as labels.
        technology_share: share of views with gene-wise factors. technology_sigma: largest sd of their logarithm.
        panel_share: share of views with a panel of genes. panel_low, panel_high: number of its genes.
    """

    needs: ClassVar[dict[str, str]] = {
        "technology_sigma": "technology_share",
        "panel_low": "panel_share",
        "panel_high": "panel_share",
    }
    # Options of the other stages that have no effect here.
    unused: ClassVar[frozenset[str]] = frozenset(
        {"accumulate", "tissue_power", "balance_by", "block", "thin_share", "score_weight"}
    )

    steps: int = 3000
    batch_size: int = 96
    lr: float = 1e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    temperature: float = 0.1
    reconstruction: float = 1.0
    labels: bool = True
    mixed_share: float = 0.25
    technology_share: float = 0.8
    technology_sigma: float = 1.2
    panel_share: float = 0.5
    panel_low: int = 500
    panel_high: int = 6000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "temperature", "technology_sigma")
        require_at_least(self, 0, "reconstruction")
        require_share(self, "mixed_share", "technology_share", "panel_share")
        require_at_least(self, 1, "panel_low")
        if self.panel_high < self.panel_low:
            raise ConfigError(f"panel_high ({self.panel_high}) cannot be below panel_low ({self.panel_low}).")

    def refuse_ineffective(self, names: Iterable[str]) -> None:
        """As in ``OptimizerConfig``."""
        names = list(names)
        if void := self.unused.intersection(names):
            raise ConfigError(f"{min(void)} has no effect on the view head: leave it out.")
        super().refuse_ineffective(names)
