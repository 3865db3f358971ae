"""The DeepCDR network (Liu et al. 2020): drug encoder, cell branches, pair head; ln IC50 of C cells x D drugs.

Towers are separate: D drugs cost D graph passes, C cells C passes, and only what follows is done a pair.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scpalm.model.drug_response.config import AtomPooling, DrugResponseConfig, pooling_share
from scpalm.model.molecules import NUM_FEATURES, GraphBatch


class GraphTensors(nn.Module):
    """A ``GraphBatch`` on a device."""

    features: Tensor
    adjacency: Tensor
    pool: Tensor

    def __init__(self, graphs: GraphBatch, pooling: AtomPooling) -> None:
        super().__init__()
        atoms = len(graphs.features)
        self.register_buffer("features", torch.from_numpy(graphs.features))
        places = torch.from_numpy(np.stack([graphs.row, graphs.column]))
        self.register_buffer("adjacency", _sparse(places, torch.from_numpy(graphs.weight), (atoms, atoms)))
        share = torch.from_numpy(pooling_share(graphs, pooling))
        places = torch.from_numpy(np.stack([graphs.molecule, np.arange(atoms)]))
        self.register_buffer("pool", _sparse(places, share, (graphs.num_molecules, atoms)))


def _sparse(places: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()


class DrugEncoder(nn.Module):
    """Graph convolutions ``ReLU(A X W + b)``, each with batch norm over atoms and dropout; pooled over atoms.

    A batch norm over drugs follows the pool: the mean over thirty atoms differs little between drugs beside what they
    have in common, and without it the drugs are told apart several times more slowly (DeepCDR has none there).
    In ``eval()`` each feature is kept within ``low`` and ``high``, its range over the training drugs: what lies beyond,
    in a molecule unlike any of them, says no more than the most extreme of them does.
    """

    low: Tensor
    high: Tensor

    def __init__(self, config: DrugResponseConfig) -> None:
        super().__init__()
        widths = (NUM_FEATURES, *config.graph_widths)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in config.graph_widths)
        self.dropout = nn.Dropout(config.dropout)
        self.pooled_norm = nn.BatchNorm1d(config.drug_width)
        self.readout = config.readout
        self.register_buffer("low", torch.full((config.drug_width,), -1e6))
        self.register_buffer("high", torch.full((config.drug_width,), 1e6))

    def forward(self, graphs: GraphTensors) -> Tensor:
        """``[D, drug_width]``."""
        x = graphs.features
        pooled = [torch.sparse.mm(graphs.pool, x)]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(norm(torch.relu(layer(torch.sparse.mm(graphs.adjacency, x)))))
            pooled.append(torch.sparse.mm(graphs.pool, x))
        x = self.pooled_norm(torch.cat(pooled if self.readout == "all" else pooled[-1:], dim=1))
        return x if self.training else torch.clamp(x, self.low, self.high)


class CellBranch(nn.Module):
    """Dense tanh, batch norm, dropout, dense ReLU. Batch norm's statistics are those of the lines of a batch.

    ``last_dropout`` is of what the branch says.
    """

    def __init__(self, width: int, hidden: int, config: DrugResponseConfig, last_dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(hidden, config.branch)
        self.last_dropout = nn.Dropout(last_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[C, width] -> [C, branch]``."""
        hidden = self.dropout(self.norm(torch.tanh(self.first(x))))
        return self.last_dropout(torch.relu(self.last(hidden)))


class PublishedHead(nn.Module):
    """DeepCDR: dense 300 tanh, dropout, conv 30@150, pool 2, conv 10@5, pool 3, conv 5@5, pool 3, dropout, dense."""

    def __init__(self, cell: int, drug: int, config: DrugResponseConfig) -> None:
        super().__init__()
        self.cell, self.drug = nn.Linear(cell, 300), nn.Linear(drug, 300, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.convolutions = nn.Sequential(
            nn.Conv1d(1, 30, 150), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(30, 10, 5), nn.ReLU(), nn.MaxPool1d(3),
            nn.Conv1d(10, 5, 5), nn.ReLU(), nn.MaxPool1d(3),
            nn.Flatten(),
        )  # fmt: skip
        self.last = nn.Linear(30, 1)

    def left(self, cells: Tensor) -> Tensor:
        return self.cell(cells)

    def units(self, said: Tensor) -> Tensor:
        """What pairs are made of, from what ``drug`` says."""
        return said

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        x = self.dropout(torch.tanh(cells + drugs))[:, None]
        return self.last(self.dropout(self.convolutions(x)))[:, 0]


class MlpHead(nn.Module):
    """ReLU over 128 units that cell and drug add to, dense 32 ReLU, dense 1."""

    def __init__(self, cell: int, drug: int, config: DrugResponseConfig) -> None:
        super().__init__()
        self.cell, self.drug = nn.Linear(cell, 128), nn.Linear(drug, 128, bias=False)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def left(self, cells: Tensor) -> Tensor:
        return self.cell(cells)

    def units(self, said: Tensor) -> Tensor:
        """What pairs are made of, from what ``drug`` says."""
        return said

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        return self.rest(cells + drugs)[:, 0]


class ProductHead(nn.Module):
    """``<u(cell), v(drug)> / sqrt(rank)`` plus an offset of the cell and one of the drug: all pairs are one product."""

    def __init__(self, cell: int, drug: int, config: DrugResponseConfig) -> None:
        super().__init__()
        self.rank = config.rank
        self.cell, self.drug = nn.Linear(cell, config.rank + 1), nn.Linear(drug, config.rank + 1)

    def left(self, cells: Tensor) -> Tensor:
        u = self.cell(cells)
        return torch.cat([u[:, :-1] / math.sqrt(self.rank), u[:, -1:], torch.ones_like(u[:, :1])], dim=1)

    def units(self, said: Tensor) -> Tensor:
        """What pairs are made of, from what ``drug`` says."""
        return torch.cat([said[:, :-1], torch.ones_like(said[:, :1]), said[:, -1:]], dim=1)

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        return (cells * drugs).sum(1)


HEADS: dict[str, type[PublishedHead | MlpHead | ProductHead]] = {
    "published": PublishedHead,
    "mlp": MlpHead,
    "product": ProductHead,
}


@dataclass(frozen=True)
class CellTensors:
    """Standardised features of C cells, one tensor ``[C, width]`` a branch: ``cell``, then what the setting adds."""

    branches: tuple[Tensor, ...]

    def of(self, cells: Tensor) -> CellTensors:
        return CellTensors(tuple(part[cells] for part in self.branches))


class DrugResponseNetwork(nn.Module):
    """Predicts ``(ln IC50 - mean) / scale``; mean and sd of the training rows are part of it."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: DrugResponseConfig, mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.config = config
        self.drug_encoder = DrugEncoder(config)
        widths = {"cell": config.cell_width, "mutation": config.mutation_width, "methylation": config.methylation_width}
        self.cell_branches = nn.ModuleList(
            CellBranch(widths[name], config.hidden_of(name), config, 0.0 if name == "cell" else config.extra_dropout)
            for name in config.branches
        )
        self.head = HEADS[config.head](len(config.branches) * config.branch, config.drug_width, config)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    def left(self, cells: CellTensors) -> Tensor:
        """``[C, units]``: what the pairs of each cell are made of."""
        parts = zip(self.cell_branches, cells.branches, strict=True)
        return self.head.left(torch.cat([branch(part) for branch, part in parts], dim=1))

    def right(self, graphs: GraphTensors) -> Tensor:
        """``[D, units]``: what the pairs of each drug are made of."""
        return self.head.units(self.head.drug(self.drug_encoder(graphs)))

    def forward(self, cells: CellTensors, graphs: GraphTensors, cell_of: Tensor, drug_of: Tensor) -> Tensor:
        """Standardised ln IC50 ``[pairs]`` of the pairs (``cell_of``, ``drug_of``)."""
        return self.head.pairs(self.left(cells)[cell_of], self.right(graphs)[drug_of])

    @torch.no_grad()
    def predict(
        self, cells: CellTensors, graphs: GraphTensors, cell_of: Tensor, drug_of: Tensor, *, block: int = 8192
    ) -> Tensor:
        """ln IC50 (uM) ``[pairs]``; use in ``eval()``."""
        left, right = self.left(cells), self.right(graphs)
        pairs = zip(cell_of.split(block), drug_of.split(block), strict=True)
        parts = [self.head.pairs(left[cell], right[drug]) for cell, drug in pairs]
        return torch.cat(parts) * self.scale + self.mean
