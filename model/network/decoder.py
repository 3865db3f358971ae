"""The decoder of stage 1 for serving: pathway codes -> decoded tokens, which the gene head reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.transformer import Transformer


class TokenDecoder(nn.Module):
    """Codes ``[B, N]`` int32 -> decoded tokens ``[B, N, D]``. Tensor names are those of ``weights.safetensors``."""

    code_tokens: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("code_tokens", torch.zeros(config.num_codes, config.width))
        self.decoder_position = nn.Parameter(torch.zeros(config.num_tokens, config.width))
        self.decoder = Transformer(config.width, config.num_layers, config.num_heads, config.norm)

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder(self.code_tokens[codes.to(torch.int64)] + self.decoder_position)  # [B, N, D]
