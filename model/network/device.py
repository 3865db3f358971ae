"""The inference networks arranged for a GPU: half-precision matrix products, and tables in place of the first products.

`DeviceEncoder` has the values of `InferenceNetwork` up to rounding. In float16, 99.9 % of the codes of real cells are
those of float32 (bfloat16: 99.3 %), and h_C has a mean cosine of 0.99999 with it (training/LOG.md). Letters: B cells, R
components, N tokens, D width, K codes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.network.transformer import Layer, Transformer

# With one or two queries, PyTorch's attention on several CPU threads rounds a cell by its position in the block.
_QUERIES = 4


class _RoundedNorm(nn.LayerNorm):
    """A LayerNorm in float32 whose result is rounded for the matrix product that follows."""

    dtype: torch.dtype = torch.float32

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(self.dtype)


def rounded(transformer: Transformer, dtype: torch.dtype) -> Transformer:
    """A copy whose matrix products and attention run in ``dtype``; sums, norms and residuals stay float32.

    Post-LN layers have no norm before a product, so a network with ``norm=post`` stays float32.
    """
    found = copy.deepcopy(transformer)
    if dtype == torch.float32 or not all(layer.pre for layer in found.layers):
        return found
    for layer in found.layers:
        for name in ("norm1", "norm2"):
            norm = getattr(layer, name)
            replacement = _RoundedNorm(norm.normalized_shape, norm.eps)
            replacement.load_state_dict(norm.state_dict())
            replacement.dtype = dtype
            setattr(layer, name, replacement)
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
    return found


class DeviceEncoder(nn.Module):
    """``f [B, R]`` and ``log |z| [B, 1]`` -> ``h_C [B, D]`` and pathway codes ``[B, N]`` int32.

    A token of the cell encoder is one of K codes at one of N positions. So what its first layer makes of it is looked
    up: the projections for attention, and the contribution to the cell token.
    """

    qkv_table: Tensor
    read_in_table: Tensor
    first_row: Tensor

    def __init__(self, network: InferenceNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.encoder = rounded(network.encoder, dtype)
        cells = network.cell_encoder
        self.transformer = rounded(cells.transformer, dtype)
        N, (K, D) = network.num_tokens, network.code_tokens.shape
        tokens = network.code_tokens.expand(N, K, D).transpose(0, 1)  # [K, N, D]
        placed = (tokens + cells.position).transpose(0, 1)  # [N, K, D]
        self.register_buffer("qkv_table", self._project(placed).flatten(0, 1).contiguous())  # [N * K, 3 D]
        features = cells.features(tokens).transpose(0, 1)  # [N, K, code width]
        self.register_buffer("read_in_table", torch.bmm(features, cells.read_in).flatten(0, 1))  # [N * K, D]
        self.register_buffer("first_row", torch.arange(N, dtype=torch.int64) * K)
        self.requires_grad_(requires_grad=False)

    def _project(self, x: Tensor) -> Tensor:
        """Tokens ``[.., D]`` -> their projections in the first layer of the cell encoder ``[.., 3 D]``."""
        layer = self.transformer.layers[0]
        assert isinstance(layer, Layer)
        qkv: Tensor = layer.attention.qkv(layer.norm1(x) if layer.pre else x)
        return qkv

    def codes(self, f: Tensor, log_length: Tensor) -> Tensor:
        """``[B, N]`` int64. The distances to the codes are float32."""
        network = self.network
        x = network.inputs_of_tokens(f, log_length)
        encoded = self.encoder(x[:, :, None] * network.token_scale + network.encoder_position)  # [B, N, D]
        return network.nearest_of(encoded)

    def cell_token(self, codes: Tensor) -> Tensor:
        """Codes ``[B, N]`` int64 -> ``h_C [B, D]``."""
        cells = self.network.cell_encoder
        entry = codes + self.first_row  # [B, N], row of the tables
        start = cells.cell_token + F.embedding_bag(entry, self.read_in_table, mode="sum")  # [B, D]
        placed = self.network.code_tokens[codes] + cells.position  # [B, N, D]
        qkv = torch.cat([self._project(start)[:, None], self.qkv_table[entry]], dim=1)  # [B, 1 + N, 3 D]
        return self.transformer.first_token(torch.cat([start[:, None], placed], dim=1), qkv, _QUERIES)

    def forward(self, f: Tensor, log_length: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.codes(f, log_length)
        return self.cell_token(codes), codes.to(torch.int32)
