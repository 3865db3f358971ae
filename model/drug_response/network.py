"""The DeepCDR network (Liu et al. 2020): drug encoder, cell branches and pair head -> ln IC50 of C cells x D drugs.

Cells and drugs are encoded separately, once each. Only the pair head runs for every pair.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scpalm.model.drug_response.config import AtomPooling, DrugResponseConfig, pooling_share
from scpalm.model.molecules.graph import NUM_FEATURES, GraphBatch


class GraphTensors(nn.Module):
    """A ``GraphBatch`` on a device."""

    features: Tensor
    adjacency: Tensor
    pool: Tensor

    def __init__(self, graphs: GraphBatch, pooling: AtomPooling) -> None:
        super().__init__()
        atoms = len(graphs.features)
        self.register_buffer("features", torch.from_numpy(graphs.features))
        indices = torch.from_numpy(np.stack([graphs.row, graphs.column]))
        self.register_buffer("adjacency", _sparse(indices, torch.from_numpy(graphs.weight), (atoms, atoms)))
        share = torch.from_numpy(pooling_share(graphs, pooling))
        indices = torch.from_numpy(np.stack([graphs.molecule, np.arange(atoms)]))
        self.register_buffer("pool", _sparse(indices, share, (graphs.num_molecules, atoms)))


def _sparse(indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).coalesce()


class DrugEncoder(nn.Module):
    """Graph convolutions ``ReLU(A X W + b)``, each with batch norm over atoms and dropout, then pooled over atoms.

    A batch norm over drugs follows the pooling, unlike in DeepCDR. The mean over thirty atoms differs little between
    drugs, and without it the network learns to separate them several times more slowly. In ``eval()`` each feature is
    clipped to ``low`` and ``high``, its range over the training drugs, because it carries no more information beyond.
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
    """Dense tanh, batch norm over the lines of a batch, dropout, dense ReLU.

    ``last_dropout``: dropout rate on the output of the branch.
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
    """The head of DeepCDR.

    Dense 300 tanh, dropout, conv 30@150, pool 2, conv 10@5, pool 3, conv 5@5, pool 3, dropout, dense.
    """

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

    def cell_units(self, cells: Tensor) -> Tensor:
        """Encoded cells ``[C, width]`` -> ``[C, units]``, the input of `pairs`."""
        return self.cell(cells)

    def drug_units(self, projected: Tensor) -> Tensor:
        """Output of the layer ``drug`` -> ``[D, units]``, the input of `pairs`."""
        return projected

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        x = self.dropout(torch.tanh(cells + drugs))[:, None]
        return self.last(self.dropout(self.convolutions(x)))[:, 0]


class MlpHead(nn.Module):
    """ReLU of 128 units, the sum of cell and drug; then dense 32 ReLU, dense 1."""

    def __init__(self, cell: int, drug: int, config: DrugResponseConfig) -> None:
        super().__init__()
        self.cell, self.drug = nn.Linear(cell, 128), nn.Linear(drug, 128, bias=False)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def cell_units(self, cells: Tensor) -> Tensor:
        """Encoded cells ``[C, width]`` -> ``[C, units]``, the input of `pairs`."""
        return self.cell(cells)

    def drug_units(self, projected: Tensor) -> Tensor:
        """Output of the layer ``drug`` -> ``[D, units]``, the input of `pairs`."""
        return projected

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        return self.rest(cells + drugs)[:, 0]


class ProductHead(nn.Module):
    """``<u(cell), v(drug)> / sqrt(rank)`` plus an offset of the cell and one of the drug.

    The offsets are part of the units, so that all pairs are one matrix product.
    """

    def __init__(self, cell: int, drug: int, config: DrugResponseConfig) -> None:
        super().__init__()
        self.rank = config.rank
        self.cell, self.drug = nn.Linear(cell, config.rank + 1), nn.Linear(drug, config.rank + 1)

    def cell_units(self, cells: Tensor) -> Tensor:
        """Encoded cells ``[C, width]`` -> ``[C, rank + 2]``, the input of `pairs`."""
        u = self.cell(cells)  # [C, rank + 1]
        return torch.cat([u[:, :-1] / math.sqrt(self.rank), u[:, -1:], torch.ones_like(u[:, :1])], dim=1)

    def drug_units(self, projected: Tensor) -> Tensor:
        """Output of the layer ``drug [D, rank + 1]`` -> ``[D, rank + 2]``, the input of `pairs`."""
        return torch.cat([projected[:, :-1], torch.ones_like(projected[:, :1]), projected[:, -1:]], dim=1)

    def pairs(self, cells: Tensor, drugs: Tensor) -> Tensor:
        return (cells * drugs).sum(1)


HEADS: dict[str, type[PublishedHead | MlpHead | ProductHead]] = {
    "published": PublishedHead,
    "mlp": MlpHead,
    "product": ProductHead,
}


@dataclass(frozen=True)
class CellTensors:
    """Standardised features of C cells: one tensor ``[C, width]`` per branch, in the order of ``config.branches``."""

    branches: tuple[Tensor, ...]

    def of(self, cells: Tensor) -> CellTensors:
        """The features of the cells at these positions."""
        return CellTensors(tuple(part[cells] for part in self.branches))


class DrugResponseNetwork(nn.Module):
    """Predicts ``(ln IC50 - mean) / scale``, where mean and scale are the mean and sd of the training rows."""

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

    def cell_units(self, cells: CellTensors) -> Tensor:
        """``[C, units]``: the cells as the pair head reads them."""
        parts = zip(self.cell_branches, cells.branches, strict=True)
        return self.head.cell_units(torch.cat([branch(part) for branch, part in parts], dim=1))

    def drug_units(self, graphs: GraphTensors) -> Tensor:
        """``[D, units]``: the drugs as the pair head reads them."""
        return self.head.drug_units(self.head.drug(self.drug_encoder(graphs)))

    def forward(self, cells: CellTensors, graphs: GraphTensors, cell_of: Tensor, drug_of: Tensor) -> Tensor:
        """Standardised ln IC50 ``[pairs]`` of the pairs (``cell_of``, ``drug_of``)."""
        return self.head.pairs(self.cell_units(cells)[cell_of], self.drug_units(graphs)[drug_of])

    @torch.no_grad()
    def predict(
        self, cells: CellTensors, graphs: GraphTensors, cell_of: Tensor, drug_of: Tensor, *, block: int = 8192
    ) -> Tensor:
        """ln IC50 (uM) ``[pairs]``. Call it in ``eval()`` mode."""
        cell_units, drug_units = self.cell_units(cells), self.drug_units(graphs)
        pairs = zip(cell_of.split(block), drug_of.split(block), strict=True)
        parts = [self.head.pairs(cell_units[cell], drug_units[drug]) for cell, drug in pairs]
        return torch.cat(parts) * self.scale + self.mean
