"""Small networks and random cells for them."""

from __future__ import annotations

import torch
from torch import Tensor

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import SparseCells

GENES = 50
CONFIG = NetworkConfig(
    num_genes=GENES,
    num_tokens=8,
    width=16,
    num_layers=2,
    num_heads=2,
    num_codes=12,
    gene_width=10,
    code_width=4,
    components=12,
    view_width=4,
    view_hidden=8,
)


def random_cells(cells: int = 6, *, genes: int = GENES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``x [B, G]`` with about a third of the genes expressed, ``measured [B, G]`` with about a fifth missing."""
    generator = torch.Generator().manual_seed(seed)
    measured = torch.rand(cells, genes, generator=generator) < 0.8
    expressed = (torch.rand(cells, genes, generator=generator) < 0.4) & measured
    expressed[:, 0] = measured[:, 0] = True
    return torch.rand(cells, genes, generator=generator).mul(4).add(0.1) * expressed, measured


def sparse_of(x: Tensor, measured: Tensor) -> SparseCells:
    cell, gene = torch.nonzero(x, as_tuple=True)
    lengths = torch.bincount(cell, minlength=len(x))
    return SparseCells(gene, x[cell, gene], torch.cumsum(lengths, 0) - lengths, measured)


def small_cells(cells: int = 6, seed: int = 0) -> SparseCells:
    return sparse_of(*random_cells(cells, seed=seed))
