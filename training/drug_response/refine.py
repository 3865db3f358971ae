"""Train a finished member further while its drug side stays fixed, so that drug units are computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scpalm.model.drug_response.network import CellTensors, DrugResponseNetwork, GraphTensors
from scpalm.model.molecules.graph import batch_graphs
from scpalm.training.drug_response.member import Progress
from scpalm.training.drug_response.steps import MemberTask, Numbers, line_epoch, one_cycle, take_step, validation_rmse


@dataclass(frozen=True, eq=False)
class Refinement:
    """What is trained further, and how.

    Attributes:
        stage: its name in progress and history. draw: seeds the passes. epochs: passes over the rows.
        network: of the member. trained: all modules whose weights change, including those of ``network``.
        groups: parameter groups for the optimizer; ``rates`` holds the peak rate of each.
        features: computes the inputs of chosen lines, with gradients where the encoder learns.
        train_mode: puts the modules into the mode of a training step.
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


def refine(what: Refinement, task: MemberTask, progress: Progress) -> list[dict[str, str | int | float]]:
    """Train on the CPU and keep the weights of the epoch with the best validation RMSE, epoch 0 included.

    Returns the history.
    """
    tables, config = task.tables, task.config
    network, trained = what.network, what.trained.eval()
    answer = (torch.from_numpy(tables.ln_ic50) - network.mean) / network.scale
    with torch.no_grad():
        drug_units = network.drug_units(GraphTensors(batch_graphs(tables.graphs), network.config.pooling))
    history: list[dict[str, str | int | float]] = []

    def look(epoch: int) -> float:
        with torch.no_grad():
            cells = what.features(np.arange(len(tables.lines)))
        rmse = validation_rmse(network, task, cells, drug_units)
        history.append({"stage": what.stage, "step": epoch, "validation_rmse": round(rmse, 5)})
        progress(what.stage, epoch, rmse)
        return rmse

    optimizer, schedule = one_cycle(what.groups, what.rates, what.epochs * config.line_groups, config.weight_decay)
    best, kept = look(0), _copy(trained)
    for epoch in range(what.epochs):
        what.train_mode()
        for rows in line_epoch(task, [*what.draw, epoch]):
            line, line_of = np.unique(tables.line_of[rows], return_inverse=True)
            cell_units = network.cell_units(what.features(line))
            guess = network.head.pairs(
                cell_units[torch.from_numpy(line_of)], drug_units[torch.from_numpy(tables.drug_of[rows])]
            )
            take_step(optimizer, schedule, (guess - answer[rows]).square().mean())
        trained.eval()
        if (rmse := look(epoch + 1)) < best:
            best, kept = rmse, _copy(trained)
    trained.load_state_dict(kept)
    trained.eval().requires_grad_(requires_grad=False)
    return history


def freeze_norms(module: nn.Module) -> None:
    """Keep the learned statistics of batch norms fixed during training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
