"""More training of a finished member whose drug side stays as it is: what the drugs say is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scpalm.model.drug_response.network import CellTensors, DrugResponseNetwork, GraphTensors
from scpalm.model.molecules import batch_graphs
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.member import Progress
from scpalm.training.drug_response.splits import Split
from scpalm.training.drug_response.steps import Numbers, line_epoch, one_cycle, take_step, validation_rmse
from scpalm.training.drug_response.tables import Tables


@dataclass(frozen=True, eq=False)
class Refinement:
    """What is refined.

    Attributes:
        stage: its name, in progress and history. draw: seeds its passes. epochs: passes over the rows.
        network: of the member. trained: all modules whose weights move, ``network`` or parts of it among them.
        groups: of weights, as an optimizer takes them; each has its peak rate in ``rates``.
        features: of chosen lines, with gradients where the encoder learns.
        train_mode: puts the modules into the mode of a step.
    """

    stage: str
    draw: list[int]
    epochs: int
    network: DrugResponseNetwork
    trained: nn.ModuleList
    groups: list[dict[str, Any]]
    rates: list[float]
    features: Callable[[Numbers], CellTensors]
    train_mode: Callable[[], None]


def refine(
    what: Refinement, tables: Tables, split: Split, config: DrugTrainingConfig, progress: Progress
) -> list[dict[str, str | int | float]]:
    """Train, and leave the weights of the pass with the best validation RMSE, the start among them.

    Returns the history. CPU.
    """
    network, trained = what.network, what.trained.eval()
    answer = (torch.from_numpy(tables.ln_ic50) - network.mean) / network.scale
    with torch.no_grad():
        right = network.right(GraphTensors(batch_graphs(tables.graphs), network.config.pooling))
    history: list[dict[str, str | int | float]] = []

    def look(epoch: int) -> float:
        with torch.no_grad():
            cells = what.features(np.arange(len(tables.lines)))
        rmse = validation_rmse(network, tables, split, cells, right)
        history.append({"stage": what.stage, "step": epoch, "validation_rmse": round(rmse, 5)})
        progress(what.stage, epoch, rmse)
        return rmse

    optimizer, schedule = one_cycle(what.groups, what.rates, what.epochs * config.line_groups, config.weight_decay)
    best, kept = look(0), _copy(trained)
    for epoch in range(what.epochs):
        what.train_mode()
        for rows in line_epoch(tables, split, config.line_groups, [*what.draw, epoch]):
            line, line_of = np.unique(tables.line_of[rows], return_inverse=True)
            left = network.left(what.features(line))
            guess = network.head.pairs(left[torch.from_numpy(line_of)], right[torch.from_numpy(tables.drug_of[rows])])
            take_step(optimizer, schedule, (guess - answer[rows]).square().mean())
        trained.eval()
        if (rmse := look(epoch + 1)) < best:
            best, kept = rmse, _copy(trained)
    trained.load_state_dict(kept)
    trained.eval().requires_grad_(False)
    return history


def norms_stay(module: nn.Module) -> None:
    """In training, batch norms keep the statistics they have learned."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
