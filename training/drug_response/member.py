"""Training one network: free drug vectors first, then the drug encoder towards them, then the whole, end to end.

The drug encoder is nine tenths of the arithmetic of a step, and most of what the cell side has to learn does not need
it. So the cell side learns beside one free vector a drug; the encoder then learns to say of a molecule what its vector
says; at last both are trained together. A step is a group of lines with a group of drugs, each encoded once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.drug_response.config import DrugResponseConfig
from model.drug_response.network import DrugResponseNetwork, GraphTensors
from model.molecules import batch_graphs
from training.drug_response.config import DrugTrainingConfig
from training.drug_response.features import LineFeatures
from training.drug_response.splits import Split
from training.drug_response.tables import Tables

Numbers = NDArray[np.int64]
Progress = Callable[[str, int, float], None]
_FREE, _ENCODER, _JOINT = 0, 1, 2  # stages, as part of each random draw
CHECK_EVERY = 5  # epochs of the encoder between looks at the validation rows


@dataclass(frozen=True, eq=False)
class Member:
    """A trained network in ``eval()``, and how it came about.

    Attributes:
        network: with the weights of the epoch whose validation RMSE was best. history: one entry a look at the
            validation rows: stage, epoch, RMSE (ln uM).
    """

    network: DrugResponseNetwork
    history: list[dict[str, str | int | float]]


def network_config(config: DrugTrainingConfig, features: LineFeatures) -> DrugResponseConfig:
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
        hidden=config.hidden,
        graph_widths=(*[config.graph_width] * 3, 100),
    )


def train_member(
    tables: Tables,
    features: LineFeatures,
    split: Split,
    config: DrugTrainingConfig,
    seed: int,
    progress: Progress = lambda stage, epoch, rmse: None,
) -> Member:
    """Train on ``split.train``; everything random is drawn from ``seed`` and the step. CPU."""
    torch.manual_seed(seed)
    answers = tables.ln_ic50[split.train]
    network = DrugResponseNetwork(network_config(config, features), float(answers.mean()), float(answers.std()))
    return _Trainer(tables, features, split, config, seed, network, progress).run()


class _Trainer:
    def __init__(
        self,
        tables: Tables,
        features: LineFeatures,
        split: Split,
        config: DrugTrainingConfig,
        seed: int,
        network: DrugResponseNetwork,
        progress: Progress,
    ) -> None:
        self.tables, self.split, self.config, self.seed = tables, split, config, seed
        self.cells, self.network, self.progress = features.tensors, network, progress
        self.all_graphs = GraphTensors(batch_graphs(tables.graphs), config.pooling)
        self.answer = (torch.from_numpy(tables.ln_ic50) - network.mean) / network.scale
        self.train_drugs = np.unique(tables.drug_of[split.train])
        self.history: list[dict[str, str | int | float]] = []
        self.best = float("inf")
        self.best_state: dict[str, Tensor] = {}

    def run(self) -> Member:
        vectors = self._free_stage()
        self._encoder_stage(vectors)
        self._joint_stage()
        self.network.load_state_dict(self.best_state)
        return Member(self.network.eval().requires_grad_(False), self.history)

    def _free_stage(self) -> Tensor:
        """Cell branches and head beside one free vector a drug. Returns the vectors ``[D, drug_width]``."""
        network, config = self.network, self.config
        vectors = nn.Parameter(torch.randn(len(self.tables.drugs), network.config.drug_width))
        weights = [*network.cell_branches.parameters(), *network.head.parameters(), vectors]
        optimizer, schedule = self._optimizer(weights, config.lr, config.free_epochs * config.line_groups)
        for epoch in range(config.free_epochs):
            network.train()
            for rows in self._epoch(_FREE, epoch, 1):
                line, line_of = np.unique(self.tables.line_of[rows], return_inverse=True)
                left = network.left(self.cells.of(torch.from_numpy(line)))
                right = network.head.right(vectors)
                drug_of = torch.from_numpy(self.tables.drug_of[rows])
                guess = network.head.pairs(left[torch.from_numpy(line_of)], right[drug_of])
                _step(optimizer, schedule, (guess - self.answer[rows]).square().mean())
        network.eval()
        with torch.no_grad():
            self._look("free vectors", config.free_epochs, network.head.right(vectors), keep=False)
        return vectors.detach()

    def _encoder_stage(self, vectors: Tensor) -> None:
        """The encoder learns to give the answers that the vectors give, for the training drugs and lines."""
        network, config = self.network, self.config
        with torch.no_grad():
            right = network.head.right(vectors)
            left = network.left(self.cells)
        lines = np.unique(self.tables.line_of[self.split.train])
        steps = config.encoder_epochs * config.drug_groups
        optimizer, schedule = self._optimizer(network.drug_encoder.parameters(), config.encoder_lr, steps)
        for epoch in range(config.encoder_epochs):
            network.train()
            random = np.random.default_rng([self.seed, _ENCODER, epoch])
            # Batch norm has no statistics of a single drug: such a group is left out.
            for drugs in np.array_split(random.permutation(self.train_drugs), config.drug_groups):
                if len(drugs) < 2:
                    continue
                some = random.permutation(lines)[: max(1, len(lines) // config.line_groups)]
                line_of = torch.from_numpy(np.tile(some, len(drugs)))
                drug_of = torch.from_numpy(np.repeat(np.arange(len(drugs)), len(some)))
                wanted = network.head.pairs(left[line_of], right[torch.from_numpy(drugs)][drug_of]).detach()
                guess = network.head.pairs(left[line_of], network.right(self._graphs(drugs))[drug_of])
                _step(optimizer, schedule, (guess - wanted).square().mean())
            if (epoch + 1) % CHECK_EVERY == 0 or epoch + 1 == config.encoder_epochs:
                self._look("encoder", epoch + 1)

    def _joint_stage(self) -> None:
        network, config = self.network, self.config
        steps = config.joint_epochs * config.line_groups * config.drug_groups
        if not steps:
            return
        optimizer, schedule = self._optimizer(network.parameters(), config.joint_lr, steps)
        for epoch in range(config.joint_epochs):
            network.train()
            for rows in self._epoch(_JOINT, epoch, config.drug_groups):
                line, line_of = np.unique(self.tables.line_of[rows], return_inverse=True)
                drug, drug_of = np.unique(self.tables.drug_of[rows], return_inverse=True)
                cells, graphs = self.cells.of(torch.from_numpy(line)), self._graphs(drug)
                guess = network(cells, graphs, torch.from_numpy(line_of), torch.from_numpy(drug_of))
                _step(optimizer, schedule, (guess - self.answer[rows]).square().mean())
            self._look("joint", epoch + 1)

    def _epoch(self, stage: int, epoch: int, drug_groups: int) -> Iterator[Numbers]:
        """Every training row once, in blocks of a group of lines with a group of drugs."""
        random = np.random.default_rng([self.seed, stage, epoch])
        rows, groups = self.split.train, self.config.line_groups
        line_group = random.permutation(len(self.tables.lines)) % groups
        drug_group = random.permutation(len(self.tables.drugs)) % drug_groups
        block = drug_group[self.tables.drug_of[rows]] * groups + line_group[self.tables.line_of[rows]]
        for number in random.permutation(groups * drug_groups):
            chosen = rows[block == number]
            # Batch norm has no statistics of a single line or drug.
            if min(len(np.unique(of[chosen])) for of in (self.tables.line_of, self.tables.drug_of)) > 1:
                yield chosen

    def _graphs(self, drugs: Numbers) -> GraphTensors:
        return GraphTensors(batch_graphs([self.tables.graphs[drug] for drug in drugs]), self.config.pooling)

    def _look(self, stage: str, epoch: int, right: Tensor | None = None, *, keep: bool = True) -> None:
        """RMSE on the validation rows; keeps the weights when it is the best so far."""
        network, rows = self.network.eval(), self.split.validation
        line_of, drug_of = torch.from_numpy(self.tables.line_of[rows]), torch.from_numpy(self.tables.drug_of[rows])
        with torch.no_grad():
            left, right = network.left(self.cells), network.right(self.all_graphs) if right is None else right
            pairs = zip(line_of.split(8192), drug_of.split(8192), strict=True)
            guess = torch.cat([network.head.pairs(left[line], right[drug]) for line, drug in pairs])
        rmse = float((guess - self.answer[rows]).square().mean().sqrt() * network.scale)
        self.history.append({"stage": stage, "epoch": epoch, "validation_rmse": round(rmse, 5)})
        self.progress(stage, epoch, rmse)
        if keep and rmse < self.best:
            self.best, self.best_state = rmse, copy.deepcopy(network.state_dict())

    def _optimizer(
        self, weights: Iterable[nn.Parameter], lr: float, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=self.config.weight_decay)
        # One step more than is taken: tiny runs must not fall on the schedule's last, empty phase.
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 10, pct_start=0.1)


def _step(optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()
