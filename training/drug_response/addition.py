"""Add a branch for mutation or methylation to a finished member.

The member is not changed. Only the new branch and the columns of the cell's layer that read it are trained, starting
from an output of zero. So a setting with more inputs costs only a small branch on top of the setting before it, and is
never worse on the validation rows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from scpalm.model.drug_response.network import DrugResponseNetwork
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.member import Member, Progress
from scpalm.training.drug_response.refine import Refinement, freeze_norms, refine
from scpalm.training.drug_response.steps import MemberTask

_ADDED = 2  # stage, as part of each random draw


def widened(base: DrugResponseNetwork, width: int, config: DrugTrainingConfig) -> DrugResponseNetwork:
    """``base`` with its next branch, which reads ``width`` features; its answers equal those of ``base`` exactly."""
    name = "mutation" if "mutation" not in base.config.branches else "methylation"
    sizes = replace(
        base.config,
        **{f"{name}_width": width},  # type: ignore[arg-type]
        extra_hidden=config.extra_hidden,
        extra_dropout=config.extra_dropout,
    )
    network = DrugResponseNetwork(sizes)
    stored = base.state_dict()
    narrow = stored.pop("head.cell.weight")
    network.load_state_dict(stored, strict=False)
    weight = network.head.cell.weight
    with torch.no_grad():
        weight.zero_()
        weight[:, : narrow.shape[1]] = narrow
    return network


def train_addition(
    base: DrugResponseNetwork, task: MemberTask, progress: Progress = lambda stage, epoch, rmse: None
) -> Member:
    """``base`` with a branch added for the last of the task's features. The rest of its weights stay fixed."""
    features, config = task.features, task.config
    torch.manual_seed(task.seed)
    network = widened(base, features.widths[-1], config).requires_grad_(requires_grad=False)
    branch, weight = (
        network.cell_branches[-1].requires_grad_(),
        network.head.cell.weight.requires_grad_(),
    )
    first_new = weight.shape[1] - network.config.branch

    def new_columns(gradient: Tensor) -> Tensor:
        out = gradient.clone()
        out[:, :first_new] = 0
        return out

    def train_mode() -> None:
        # The older branches keep their dropout. Without it, the new one would learn on answers that are too good.
        network.cell_branches.train()
        for older in network.cell_branches[:-1]:
            freeze_norms(older)

    weight.register_hook(new_columns)
    what = Refinement(
        stage=network.config.branches[-1],
        draw=[task.seed, _ADDED, len(network.config.branches)],
        epochs=config.extra_epochs,
        network=network,
        trained=nn.ModuleList([network]),
        groups=[{"params": [*branch.parameters()]}, {"params": [weight], "weight_decay": 0.0}],
        rates=[config.extra_lr, config.extra_lr],
        features=lambda lines: features.tensors.of(torch.from_numpy(lines)),
        train_mode=train_mode,
    )
    return Member(network, refine(what, task, progress))
