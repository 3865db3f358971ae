"""Train one member: free drug vectors first, then the drug encoder, then its last layer in closed form.

The drug encoder is most of the arithmetic of a step, and the cell side does not need it to learn. So the cell side and
the head are trained with one free vector per drug. The encoder is then trained to reproduce those vectors. Finally the
linear layer after it is solved by ridge regression, with a strength chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.network import DrugResponseNetwork, GraphTensors
from scpalm.model.molecules.graph import batch_graphs
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.features import LineFeatures
from scpalm.training.drug_response.ridge import solve
from scpalm.training.drug_response.steps import MemberTask, Numbers, line_epoch, one_cycle, take_step, validation_rmse

Progress = Callable[[str, float, float], None]
_FREE, _ENCODER = 0, 1  # stages, as part of each random draw
FREE_WIDTH = 100  # of a free drug vector: that of DeepCDR's drug branch
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # relative to a mean diagonal of 1


@dataclass(frozen=True, eq=False)
class Member:
    """A trained network in ``eval()`` and its training history.

    Attributes:
        network: the last layer of its drug side is the one with the best validation RMSE.
        history: one entry per validation: stage, epoch or ridge, RMSE (ln uM).
    """

    network: DrugResponseNetwork
    history: list[dict[str, str | int | float]]


def network_config(config: DrugTrainingConfig, features: LineFeatures) -> DrugResponseConfig:
    """The sizes of the network for these options and inputs."""
    cell, *extra = features.widths
    mutation, methylation = (*extra, 0, 0)[:2]
    return DrugResponseConfig(
        cell,
        mutation,
        methylation,
        head=config.head,
        pooling=config.pooling,
        rank=config.rank,
        dropout=config.dropout,
        extra_dropout=config.extra_dropout,
        hidden=config.hidden,
        extra_hidden=config.extra_hidden,
        readout=config.readout,
        graph_widths=(*[config.graph_width] * 3, 100),
    )


def train_member(task: MemberTask, progress: Progress = lambda stage, epoch, rmse: None) -> Member:
    """Train a new network on the training rows of the task's split, on the CPU."""
    torch.manual_seed(task.seed)
    answers = task.tables.ln_ic50[task.split.train]
    sizes = network_config(task.config, task.features)
    return _Trainer(task, DrugResponseNetwork(sizes, float(answers.mean()), float(answers.std())), progress).run()


class _Trainer:
    def __init__(self, task: MemberTask, network: DrugResponseNetwork, progress: Progress) -> None:
        self.task, self.tables, self.split, self.config = task, task.tables, task.split, task.config
        self.cells, self.network, self.progress = task.features.tensors, network, progress
        self.all_graphs = GraphTensors(batch_graphs(self.tables.graphs), self.config.pooling)
        self.answer = (torch.from_numpy(self.tables.ln_ic50) - network.mean) / network.scale
        self.train_drugs = self.tables.encoder_drugs(self.split.train)
        self.history: list[dict[str, str | int | float]] = []
        network.drug_encoder.dropout.p = self.config.graph_dropout

    def run(self) -> Member:
        units = self._free_stage()
        self._encoder_stage(units)
        self._solve(units)
        return Member(self.network.eval().requires_grad_(requires_grad=False), self.history)

    def _free_stage(self) -> Tensor:
        """Train cell branches and head with free drug vectors. Returns target drug units ``[D, out]``."""
        network, config, drug_layer = self.network, self.config, self.network.head.drug
        vectors = nn.Parameter(torch.randn(len(self.tables.drugs), FREE_WIDTH))
        layer = nn.Linear(FREE_WIDTH, drug_layer.out_features, bias=drug_layer.bias is not None)
        own = {id(weight) for weight in drug_layer.parameters()}
        weights = [w for w in (*network.cell_branches.parameters(), *network.head.parameters()) if id(w) not in own]
        weights += [*layer.parameters(), vectors]
        optimizer, schedule = one_cycle(
            weights, config.lr, config.free_epochs * config.line_groups, config.weight_decay
        )
        for epoch in range(config.free_epochs):
            network.train()
            for rows in line_epoch(self.task, [self.task.seed, _FREE, epoch]):
                line, line_of = np.unique(self.tables.line_of[rows], return_inverse=True)
                cell_units = network.cell_units(self.cells.of(torch.from_numpy(line)))
                drug_units = network.head.drug_units(layer(vectors))
                drug_of = torch.from_numpy(self.tables.drug_of[rows])
                guess = network.head.pairs(cell_units[torch.from_numpy(line_of)], drug_units[drug_of])
                take_step(optimizer, schedule, (guess - self.answer[rows]).square().mean())
        network.eval()
        units = layer(vectors).detach()
        self._validate("free vectors", config.free_epochs, units)
        return units

    def _encoder_stage(self, units: Tensor) -> None:
        """Train the encoder to give the answers of the free vectors, for the training drugs and lines."""
        network, config = self.network, self.config
        with torch.no_grad():
            cell_units, drug_units = network.cell_units(self.cells), network.head.drug_units(units)
        lines = np.unique(self.tables.line_of[self.split.train])
        weights = [*network.drug_encoder.parameters(), *network.head.drug.parameters()]
        optimizer, schedule = one_cycle(
            weights, config.encoder_lr, config.encoder_epochs * config.drug_groups, config.weight_decay
        )
        for epoch in range(config.encoder_epochs):
            network.drug_encoder.train()
            random = np.random.default_rng([self.task.seed, _ENCODER, epoch])
            for drugs in np.array_split(random.permutation(self.train_drugs), config.drug_groups):
                if len(drugs) < 2:  # batch norm has no statistics of a single drug
                    continue
                some = random.permutation(lines)[: max(1, len(lines) // config.line_groups)]
                line_of = torch.from_numpy(np.tile(some, len(drugs)))
                drug_of = torch.from_numpy(np.repeat(np.arange(len(drugs)), len(some)))
                wanted = network.head.pairs(cell_units[line_of], drug_units[torch.from_numpy(drugs)][drug_of])
                guess = network.head.pairs(cell_units[line_of], network.drug_units(self._graphs(drugs))[drug_of])
                take_step(optimizer, schedule, (guess - wanted).square().mean())
        network.eval()
        with torch.no_grad():
            encoded = network.head.drug(network.drug_encoder(self.all_graphs))
        self._validate("encoder", config.encoder_epochs, encoded)

    @torch.no_grad()
    def _solve(self, units: Tensor) -> None:
        """Solve the layer after the encoder by ridge regression of the units, on the training drugs."""
        network, seen = self.network.eval(), torch.from_numpy(self.train_drugs)
        encoded = network.drug_encoder(self.all_graphs)[seen]
        network.drug_encoder.low.copy_(encoded.amin(0))
        network.drug_encoder.high.copy_(encoded.amax(0))
        everywhere = network.drug_encoder(self.all_graphs).double()  # again, now that its range is set
        tried: list[tuple[float, Tensor, Tensor]] = []
        for ridge in RIDGES:
            weight, bias = solve(encoded, units[seen], ridge)
            tried.append((self._validate("ridge", ridge, (everywhere @ weight + bias).float()), weight, bias))
        _, weight, bias = min(tried, key=lambda one: one[0])
        layer = network.head.drug
        layer.weight.copy_(weight.T)
        if layer.bias is not None:
            layer.bias.copy_(bias)
        else:  # the cell's layer has the bias of both
            network.head.cell.bias.add_(bias)

    def _graphs(self, drugs: Numbers) -> GraphTensors:
        return GraphTensors(batch_graphs([self.tables.graphs[drug] for drug in drugs]), self.config.pooling)

    def _validate(self, stage: str, step: float, units: Tensor) -> float:
        """Validation RMSE (ln uM) with the drug units ``units [D, out]``; recorded in the history."""
        with torch.no_grad():
            drug_units = self.network.head.drug_units(units)
        rmse = validation_rmse(self.network, self.task, self.cells, drug_units)
        self.history.append({"stage": stage, "step": step, "validation_rmse": round(rmse, 5)})
        self.progress(stage, step, rmse)
        return rmse
