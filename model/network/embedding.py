"""Permutation-invariant embedding of genes (paper 3.1, Algorithm 2), computed through an exact sparse identity.

Letters: B cells, G genes of the vocabulary, N read-outs (tokens), d1 width of the gene embedding, n expressed genes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scpalm.model.network.config import Pooling, ValueMap


@dataclass(frozen=True)
class GeneSetGroup:
    """The cells of a batch that share a set of measured genes.

    Attributes:
        measured: ``[G]`` bool, on the host. cells: ``[n]`` int64 positions in the batch, on the device.
    """

    measured: NDArray[np.bool_]
    cells: Tensor


class SparseCells:
    """A batch of cells on a device.

    Attributes:
        gene_index: ``[entries]`` int64, position in the vocabulary.
        value: ``[entries]`` log1p CP10K, greater than 0.
        offsets: ``[B]`` int64, first entry of each cell.
        measured: ``[B, G]`` bool, or ``[1, G]`` if all cells share one gene set.
        groups: the cells by gene set, if the maker of the batch knows it. Otherwise the read-out derives it from
            ``measured``, for which it waits for the device.
    """

    def __init__(
        self,
        gene_index: Tensor,
        value: Tensor,
        offsets: Tensor,
        measured: Tensor,
        groups: Sequence[GeneSetGroup] | None = None,
    ) -> None:
        self.gene_index = gene_index
        self.value = value
        self.offsets = offsets
        self.measured = measured
        self.groups = groups

    def map(self, change: Callable[[Tensor], Tensor]) -> SparseCells:
        """The same cells with every tensor changed, such as moved to a device."""
        groups = self.groups
        if groups is not None:
            groups = [GeneSetGroup(group.measured, change(group.cells)) for group in groups]
        index, value, offsets = (change(tensor) for tensor in (self.gene_index, self.value, self.offsets))
        return SparseCells(index, value, offsets, change(self.measured), groups)

    def __len__(self) -> int:
        return len(self.offsets)

    def lengths(self) -> Tensor:
        """``[B]`` int64: n, the number of expressed genes of each cell."""
        ends = torch.cat([self.offsets[1:], self.offsets.new_full((1,), len(self.gene_index))])
        return ends - self.offsets

    def cell_of_entry(self) -> Tensor:
        """``[entries]`` int64: the cell that each entry belongs to."""
        cells = torch.arange(len(self), device=self.value.device)
        # With the size of the result, a GPU need not be asked for it.
        return torch.repeat_interleave(cells, self.lengths(), output_size=len(self.gene_index))

    def dense(self, num_genes: int) -> Tensor:
        """``[B, G]`` values; needed only as the target of the loss."""
        out = self.value.new_zeros(len(self), num_genes)
        out[self.cell_of_entry(), self.gene_index] = self.value
        return out


class GeneEmbedding(nn.Module):
    """``f [B, N]``: mean or sum of the embeddings E_g of the expressed genes and z0, the mean over measured zeros.

    ``x >= 0`` and leaky_relu is positively homogeneous, so each gene's embedding is affine in its value:
    ``E_g = x_g * A_g + C_g``. The tables ``A, C [G, N]`` are computed once per step, so no ``[B, G, d1]`` tensor exists
    (43,678 MiB in Table 5 of the paper).

    With ``value_map="two_layer"`` this does not hold. Then each expressed value has its own embedding
    ``[entries, d1]``, summed before the linear ``W_o``. Unexpressed genes still share one value, W_v(0).
    """

    def __init__(
        self,
        num_genes: int,
        num_tokens: int,
        gene_width: int,
        pooling: Pooling = "mean",
        value_map: ValueMap = "linear",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.scale = nn.Parameter(torch.randn(num_genes, gene_width))  # P
        self.gate = nn.Parameter(torch.ones(num_genes, gene_width))  # alpha
        self.identity = nn.Parameter(torch.randn(num_genes, gene_width) * 0.02)  # E_gene
        self.value_map: nn.Module = nn.Linear(gene_width, gene_width)  # W_v
        if value_map == "two_layer":
            self.value_map = nn.Sequential(self.value_map, nn.LeakyReLU(), nn.Linear(gene_width, gene_width))
        self.read_out = nn.Linear(2 * gene_width, num_tokens)  # W_o
        self._frozen: tuple[Tensor, Tensor] | None = None

    def tables(self) -> tuple[Tensor, Tensor]:
        """``A, C [G, N]`` with ``E_g = x_g * A_g + C_g``. Raises ValueError for a value map of two layers."""
        if not isinstance(self.value_map, nn.Linear):
            raise ValueError("A two-layer value map is not affine in a gene's value: there are no tables A and C.")
        width = self.scale.shape[1]  # d1
        r = F.leaky_relu(self.scale)  # [G, d1], for x = 1
        value = self.gate * r + r @ self.value_map.weight.T  # [G, d1], E_value per unit of x
        to_value, to_identity = self.read_out.weight[:, :width], self.read_out.weight[:, width:]  # [N, d1] each
        slope = value @ to_value.T  # A [G, N]
        offset = self.identity @ to_identity.T + (to_value @ self.value_map.bias + self.read_out.bias)  # C [G, N]
        return slope, offset

    @torch.no_grad()
    def freeze(self) -> None:
        """Stop training the embedding and cache its tables."""
        self.requires_grad_(requires_grad=False)
        self._frozen = self.tables() if isinstance(self.value_map, nn.Linear) else None

    def forward(self, cells: SparseCells) -> Tensor:
        with torch.autocast(cells.value.device.type, enabled=False):  # sums over thousands of genes need float32
            if not isinstance(self.value_map, nn.Linear):
                return self._by_value(cells)
            slope, offset = self._frozen or self.tables()
            return pool(cells, slope, offset, self.pooling)

    def _by_value(self, cells: SparseCells) -> Tensor:
        """``f [B, N]`` for a value map that is not linear: one embedding per expressed value."""
        genes = cells.gene_index
        # Not scale[genes]: on a CPU with two threads, its backward pass adds floats in no fixed order.
        r = F.leaky_relu(cells.value[:, None] * F.embedding(genes, self.scale))  # [entries, d1]
        e_value = F.embedding(genes, self.gate) * r + self.value_map(r)  # [entries, d1]
        value = e_value.new_zeros(len(cells), e_value.shape[1]).index_add(0, cells.cell_of_entry(), e_value)  # [B, d1]
        identity = F.embedding_bag(genes, self.identity, cells.offsets, mode="sum")  # [B, d1]
        n = cells.lengths().to(value.dtype)[:, None]  # [B, 1]
        measured = cells.measured.to(value.dtype)  # [B, G] or [1, G]
        zeros = measured.sum(dim=1, keepdim=True) - n  # [B, 1]
        any_zero = (zeros > 0).to(value.dtype)
        unexpressed = self.value_map(r.new_zeros(1, r.shape[1])).expand_as(value)  # W_v(0)
        z0 = self.read_out(torch.cat([unexpressed, (measured @ self.identity - identity) / zeros.clamp(min=1)], dim=1))
        total = F.linear(torch.cat([value, identity], dim=1), self.read_out.weight) + n * self.read_out.bias
        total = total + any_zero * z0
        return total if self.pooling == "sum" else total / (n + any_zero)

    @torch.no_grad()
    def spectral_start(self, components: Tensor) -> None:
        """Initialise ``A`` with ``components [G, M]`` for M <= N read-outs; the other read-outs do not change.

        Needs ``d1 >= 2 M``; otherwise only the first ``d1 / 2`` components are used. The positive and the negative part
        of a component become two non-negative features, which leaky_relu leaves unchanged.
        """
        width = self.scale.shape[1]
        count = min(components.shape[1], width // 2, self.read_out.out_features)
        chosen = components[:, :count]
        self.scale[:, : 2 * count] = torch.cat([chosen.clamp(min=0), (-chosen).clamp(min=0)], dim=1)
        self.gate.fill_(1.0)
        last = self.value_map[-1] if isinstance(self.value_map, nn.Sequential) else self.value_map
        for parameter in last.parameters():
            parameter.zero_()
        eye = torch.eye(count)
        self.read_out.weight[:count, :width] = 0.0
        self.read_out.weight[:count, : 2 * count] = torch.cat([eye, -eye], dim=1)
        self.read_out.weight[:count, width:] = 0.0  # C = 0: the read-out is X V, or X V / (n + 1)
        self.read_out.bias[:count] = 0.0


def pool(cells: SparseCells, slope: Tensor, offset: Tensor, pooling: Pooling) -> Tensor:
    """``f [B, N]`` from the tables ``A`` (slope) and ``C`` (offset); M marks the expressed genes.

    ``mean``: ``f = (X A + M C + z0) / (n + 1)``; ``sum``: without the division. z0 is the mean offset of the genes that
    are measured but not expressed.
    """
    ones = torch.ones_like(cells.value)
    expressed = F.embedding_bag(cells.gene_index, slope, cells.offsets, mode="sum", per_sample_weights=cells.value) + (
        offsets := F.embedding_bag(cells.gene_index, offset, cells.offsets, mode="sum", per_sample_weights=ones)
    )  # X A + M C, [B, N]
    n = cells.lengths().to(slope.dtype)[:, None]  # [B, 1]
    measured = cells.measured.to(slope.dtype)  # [B, G] or [1, G]
    zeros = measured.sum(dim=1, keepdim=True) - n  # [B, 1]
    # If every measured gene is expressed, there is no z0.
    any_zero = (zeros > 0).to(slope.dtype)
    z0 = any_zero * (measured @ offset - offsets) / zeros.clamp(min=1)  # [B, N]
    total = expressed + z0
    return total if pooling == "sum" else total / (n + any_zero)
