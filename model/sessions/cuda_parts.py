"""The three computations of a `CudaSession`, on buffers of fixed size: the read-out, the encoders and the decoder.

Letters: B cells of a block, E entries of a block, G genes, R components, H width of the view head, N tokens, D width, S
genes per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scpalm.model.bundle import Bundle
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.decoder import TokenDecoder
from scpalm.model.network.device import DeviceEncoder, rounded
from scpalm.model.network.read_out import unit
from scpalm.model.network.streams import Device
from scpalm.model.read_out.basis import Correction
from scpalm.model.sessions.gene_head import GeneReadOut
from scpalm.model.sessions.staging import BlockShape, Slot, Step
from scpalm.model.sessions.torchscript import load_decoder, load_embedding, load_network


class ReadOutPart:
    """Cells of one gene set -> ``embedding [B, R + H]`` and ``log_length [B, 1]``, in float32."""

    def __init__(
        self, bundle: Bundle, config: NetworkConfig, device: Device, shape: BlockShape, slots: Sequence[Slot]
    ) -> None:
        network = load_embedding(bundle).to(device.device)
        basis = network.basis
        self._table = basis.components.float() * (basis.gene_weight[:, None] * basis.scale)  # [G, R]
        self._view_head, self._value_scale = network.view_head, config.value_scale
        R = config.components
        self._center, self._solve = device.empty((R,)).zero_(), device.empty((R, R)).zero_()
        self._log_measured = device.empty((1, 1)).zero_()
        self._correction: Correction | None = None
        self.embedding = device.empty((shape.cells, R + config.view_width))
        self.log_length = device.empty((shape.cells, 1))
        self._num_cells = shape.cells
        self._steps = {
            (id(slot), capacity): Step(device, partial(self._compute, slot))
            for slot in slots
            for capacity in shape.capacities
        }

    def warm_up(self, slot: Slot, capacities: Sequence[int]) -> None:
        """Record the graphs of a slot."""
        for capacity in capacities:
            slot.set_empty(capacity)
            self._steps[id(slot), capacity]()

    def run(self, slot: Slot, correction: Correction) -> None:
        """Compute the block that was sent to a slot."""
        if correction is not self._correction:
            self._center.copy_(torch.from_numpy(correction.center))
            self._solve.copy_(torch.from_numpy(correction.solve))
            self._log_measured.fill_(correction.log_measured)
            self._correction = correction
        self._steps[id(slot), slot.capacity]()

    def _compute(self, slot: Slot) -> None:
        y = torch.log1p(torch.expm1(slot.value) * self._value_scale)  # [E]
        # Adds the entries of a cell one after another, so the sums do not depend on other cells.
        sums = F.embedding_bag(
            slot.gene_index, self._table, slot.offsets, mode="sum", per_sample_weights=y, include_last_offset=True
        )[: self._num_cells]  # [B, R]
        f, log_length = unit((sums - self._center) @ self._solve)
        if self._view_head is not None:
            head = self._view_head(f, self._log_measured.expand(len(f), 1))
            f = torch.cat([f, head], dim=1)
        self.embedding.copy_(f)
        self.log_length.copy_(log_length)


class EncoderPart:
    """``f [B, R]`` and ``log_length [B, 1]`` -> ``h [B, D]`` and ``codes [B, N]`` int32."""

    def __init__(
        self, bundle: Bundle, config: NetworkConfig, device: Device, shape: BlockShape, dtype: torch.dtype
    ) -> None:
        self._network = DeviceEncoder(load_network(bundle), dtype).to(device.device)
        self.f, self.log_length = device.empty((shape.cells, config.components)), device.empty((shape.cells, 1))
        self.h = device.empty((shape.cells, config.width))
        self.codes = device.empty((shape.cells, config.num_tokens), torch.int32)
        for buffer in (self.f, self.log_length):
            buffer.zero_()
        self._step = Step(device, self._compute)

    def run(self) -> None:
        """Compute what is in ``f`` and ``log_length``."""
        self._step()

    def _compute(self) -> None:
        h, codes = self._network(self.f, self.log_length)
        self.h.copy_(h)
        self.codes.copy_(codes)


class DecoderPart:
    """``codes [B, N]``, ``f [B, R]`` and ``log_length [B, 1]`` -> log1p CP10K of the vocabulary.

    Raises BundleError if the bundle has no decoder.
    """

    def __init__(
        self, bundle: Bundle, config: NetworkConfig, device: Device, shape: BlockShape, dtype: torch.dtype
    ) -> None:
        head = GeneReadOut.load(bundle, config)
        self._network: TokenDecoder = load_decoder(bundle)
        self._network.decoder = rounded(self._network.decoder, dtype)
        self._network.to(device.device)
        self._weight = torch.from_numpy(head.weight).to(device.device)  # [N, S, D], or [1, S, D] for a shared head
        self._bias = torch.from_numpy(head.bias).to(device.device)  # [G]
        self.codes = device.empty((shape.cells, config.num_tokens), torch.int32).zero_()
        self.f = device.empty((shape.cells, config.components)).zero_()
        self.log_length = device.empty((shape.cells, 1)).zero_()
        self._values = device.empty((config.num_tokens * config.genes_per_token, shape.cells))  # [N * S, B]
        self._step = Step(device, self._compute)

    def run(self, genes: Tensor, num_cells: int) -> Tensor:
        """Compute what is in the buffers: values of chosen genes ``[num_cells, len(genes)]``.

        ``genes``: int64 positions in the vocabulary. Token i holds genes ``[S i, S (i + 1))``, so they are also rows of
        the values. All genes are computed, so that a value does not depend on which others are requested.
        """
        self._step()
        return self._values[genes, :num_cells].T + self._bias[genes]

    def _compute(self) -> None:
        decoded = self._network(self.codes, self.f, self.log_length)  # [B, N, D]
        values = torch.matmul(self._weight, decoded.permute(1, 2, 0))  # [N, S, D] @ [N, D, B] -> [N, S, B]
        self._values.copy_(values.flatten(0, 1))
