"""What all training stages of a head share: the task, passes over the rows, steps, and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scpalm.model.drug_response.network import CellTensors, DrugResponseNetwork
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.data.splits import Split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.features import LineFeatures

Numbers = NDArray[np.int64]
Optimizer = torch.optim.Optimizer
Schedule = torch.optim.lr_scheduler.LRScheduler


@dataclass(frozen=True, eq=False)
class MemberTask:
    """What one member of the ensemble is trained on, and how. Everything random is drawn from ``seed``."""

    tables: Tables
    features: LineFeatures
    split: Split
    config: DrugTrainingConfig
    seed: int


def line_epoch(task: MemberTask, draw: list[int]) -> Iterator[Numbers]:
    """Every training row once, one group of lines at a time; ``draw`` seeds the assignment of lines to groups."""
    tables, split, line_groups = task.tables, task.split, task.config.line_groups
    group = np.random.default_rng(draw).permutation(len(tables.lines)) % line_groups
    of_row = group[tables.line_of[split.train]]
    for number in range(line_groups):
        chosen = split.train[of_row == number]
        # Batch norm has no statistics of a single line.
        if len(np.unique(tables.line_of[chosen])) > 1:
            yield chosen


def one_cycle(
    weights: Iterable[nn.Parameter] | list[dict[str, Any]], lr: float | list[float], steps: int, weight_decay: float
) -> tuple[Optimizer, Schedule]:
    """AdamW with a one-cycle schedule of ``steps``; ``lr`` is its peak, or one peak per group of weights."""
    optimizer = torch.optim.AdamW(weights, lr=lr if isinstance(lr, float) else lr[0], weight_decay=weight_decay)
    # More steps than are taken: tiny runs must not reach the schedule's last, empty phase.
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 10, pct_start=0.1)


def take_step(optimizer: Optimizer, schedule: Schedule, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()


@torch.no_grad()
def validation_rmse(network: DrugResponseNetwork, task: MemberTask, cells: CellTensors, drug_units: Tensor) -> float:
    """RMSE in ln uM on the validation rows, for ``drug_units [D, units]``; the network is in ``eval()``."""
    tables, rows = task.tables, task.split.validation
    measured = (torch.from_numpy(tables.ln_ic50[rows]) - network.mean) / network.scale
    line_of, drug_of = torch.from_numpy(tables.line_of[rows]), torch.from_numpy(tables.drug_of[rows])
    cell_units = network.cell_units(cells)
    pairs = zip(line_of.split(8192), drug_of.split(8192), strict=True)
    guess = torch.cat([network.head.pairs(cell_units[line], drug_units[drug]) for line, drug in pairs])
    return float((guess - measured).square().mean().sqrt() * network.scale)
