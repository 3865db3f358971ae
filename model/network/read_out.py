"""The linear read-out as a PyTorch module: what stage 1 reads, and the graph of the served embedding.

Letters: B cells, G genes of the vocabulary, R components, N tokens per cell, L padded number of expressed genes, H
width of the view head.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from scpalm.model.genes.rows import GeneSet
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import GeneSetGroup, SparseCells
from scpalm.model.read_out.basis import Basis

# Length below which a cell counts as the mean cell of the corpus.
MIN_LENGTH = 1e-6


class LinearReadOut(nn.Module):
    """``[B, N]`` inputs of the tokens: the first N - 1 coordinates of f, and the logarithm of the length of z.

    Not trained. The tables of the genes come from a `Basis`, see `load`; they are random before. They are extra state
    and not buffers: every process has them, and there is no need to exchange them at each step.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_tokens = config.num_tokens
        self.load(_random_basis(config))

    def load(self, basis: Basis) -> None:
        """Take the tables of a basis."""
        self.basis = basis
        self._table: Tensor | None = None
        self._corrections: dict[tuple[bytes, torch.device], tuple[Tensor, Tensor]] = {}

    def prepare(self, measured: NDArray[np.bool_]) -> None:
        """Compute the corrections for these gene sets, ``[sets, G]``, on all cores; later they are looked up."""
        self._correction_on_host(measured[0])  # alone: it also computes what all of them share
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._correction_on_host, measured[1:]))

    def get_extra_state(self) -> dict[str, Tensor]:
        """The tables, for a checkpoint."""
        return {name: torch.from_numpy(array) for name, array in self.basis.tensors().items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Raises RuntimeError for tables of another size."""
        basis = Basis.from_tensors({name: tensor.numpy() for name, tensor in state.items()})
        if basis.components.shape != self.basis.components.shape:
            raise RuntimeError(f"the components have shape {basis.components.shape}, not {self.basis.components.shape}")
        self.load(basis)

    def scores(self, cells: SparseCells) -> Tensor:
        """``z [B, R]``, corrected for the genes that each cell's file measured."""
        with torch.no_grad(), torch.autocast(cells.value.device.type, enabled=False):
            if self._table is None or self._table.device != cells.value.device:
                self._table = torch.from_numpy(self.basis.table()).to(cells.value.device)
            value = torch.log1p(torch.expm1(cells.value) * self.basis.value_scale)
            sums = F.embedding_bag(
                cells.gene_index, self._table, cells.offsets, mode="sum", per_sample_weights=value
            )  # [B, R]
            out = torch.empty_like(sums)
            for group in cells.groups if cells.groups is not None else _by_gene_set(cells):
                center, solve = self._correction(group.measured, sums.device)
                out[group.cells] = (sums[group.cells] - center) @ solve
            return out

    def forward(self, cells: SparseCells) -> Tensor:
        f, log_length = unit(self.scores(cells))
        return torch.cat([f[:, : self.num_tokens - 1], log_length], dim=1)

    def _correction(self, measured: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        key = measured.tobytes(), device
        if key not in self._corrections:
            center, solve = self._correction_on_host(measured)
            self._corrections[key] = center.to(device, non_blocking=True), solve.to(device, non_blocking=True)
        return self._corrections[key]

    def _correction_on_host(self, measured: np.ndarray) -> tuple[Tensor, Tensor]:
        key = measured.tobytes(), torch.device("cpu")
        if key not in self._corrections:
            found = self.basis.correction(GeneSet(measured))
            self._corrections[key] = torch.from_numpy(found.center), torch.from_numpy(found.solve)
        return self._corrections[key]


def _random_basis(config: NetworkConfig) -> Basis:
    vectors = torch.randn(config.num_genes, config.components).numpy()
    ones, zeros = np.ones(config.num_genes, np.float32), np.zeros(config.num_genes, np.float32)
    return Basis.of(vectors, ones, zeros, ridge=config.ridge, value_scale=config.value_scale)


def unit(z: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``z [B, R]`` -> ``f [B, R]`` of length 1, and ``log |z| [B, 1]``."""
    length = z.square().sum(dim=1, keepdim=True).sqrt().clamp(min=MIN_LENGTH)
    return z / length, length.log()


def _by_gene_set(cells: SparseCells) -> list[GeneSetGroup]:
    """The cells of each distinct set of measured genes."""
    measured = cells.measured.cpu().numpy()
    device = cells.value.device
    if len(measured) == 1:
        return [GeneSetGroup(measured[0], torch.arange(len(cells), device=device))]
    groups: dict[bytes, list[int]] = {}
    for row, packed in enumerate(np.packbits(measured, axis=1)):
        groups.setdefault(packed.tobytes(), []).append(row)
    return [GeneSetGroup(measured[rows[0]], torch.tensor(rows, device=device)) for rows in groups.values()]


class ViewHead(nn.Module):
    """f and the number of measured genes -> ``[B, H]``, length 1: the cell token trained on technology views.

    A linear map plus a perceptron of one hidden layer, which starts at zero.
    """

    def __init__(self, width_in: int, width: int, hidden: int) -> None:
        super().__init__()
        self.input_scale = math.sqrt(width_in)  # f has length 1, so its coordinates are small
        self.linear = nn.Linear(width_in, width)
        self.hidden = nn.Linear(width_in + 1, hidden)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, f: Tensor, log_measured: Tensor) -> Tensor:
        """``f [B, R]``, ``log_measured [B, 1]`` (log10 of the number of measured genes, minus 4)."""
        x = f * self.input_scale
        h = self.linear(x) + self.out(F.relu(self.hidden(torch.cat([x, log_measured], dim=1))))
        return unit(h)[0]


class _Tables(nn.Module):
    components: Tensor
    scale: Tensor
    gene_weight: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros(config.num_genes, config.components, dtype=torch.int16))
        self.register_buffer("scale", torch.ones(config.components))
        self.register_buffer("gene_weight", torch.ones(config.num_genes))


class EmbeddingNetwork(nn.Module):
    """Padded sparse cells of one gene set -> the served embedding and the length of z.

    Inputs of `forward`:
        gene_index: ``[B, L]`` int32, padded with 0. value: ``[B, L]`` float32 log1p CP10K, padded with 0.
        center, solve, log_measured: ``[R]``, ``[R, R]`` and ``[1, 1]`` float32, see `Correction`.

    Outputs: ``[B, R + H]`` (f, then the view head's output; f alone without a head) and ``log |z| [B, 1]``.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.value_scale = config.value_scale
        self.basis = _Tables(config)
        self.view_head = None
        if config.view_width:
            self.view_head = ViewHead(config.components, config.view_width, config.view_hidden)

    def load_basis(self, basis: Basis) -> None:
        """Take the tables of a basis."""
        for name, tensor in self.basis.named_buffers():
            tensor.copy_(torch.from_numpy(getattr(basis, name)))

    def forward(
        self, gene_index: Tensor, value: Tensor, center: Tensor, solve: Tensor, log_measured: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Constant: the runtime computes it when the session opens.
        basis = self.basis
        table = basis.components.to(value.dtype) * (basis.gene_weight[:, None] * basis.scale)  # [G, R]
        y = torch.log(1 + (torch.exp(value) - 1) * self.value_scale)  # [B, L]
        sums = torch.bmm(y[:, None], table[gene_index.to(torch.int64)])[:, 0]  # [B, 1, L] @ [B, L, R] -> [B, R]
        # One row more: runtimes multiply a single row by another routine, which rounds differently.
        f, log_length = unit(F.pad(sums - center, (0, 0, 0, 1)) @ solve)
        if self.view_head is not None:
            head = self.view_head(f, log_measured + torch.zeros_like(f[:, :1]))
            return torch.cat([f, head], dim=1)[:-1], log_length[:-1]
        return f[:-1], log_length[:-1]
