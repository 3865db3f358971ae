"""The decoder: pathway codes and f -> expression. `CellDecoder` is trained; `TokenDecoder` is the part that is served.

Letters: B cells, G genes, K codes, N tokens, D width, R components.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import GeneHead, PathwayAutoencoder
from scpalm.model.network.transformer import Transformer

# Mean of log |z| over the corpus, about. It keeps the scores that the decoder reads near 1.
_LOG_LENGTH = 3.0


class ScoreReader(nn.Module):
    """``f [B, R]`` and ``log |z| [B, 1]`` -> ``[B, 1, D]``, added to every decoded token.

    Codes hold one of K values for each token. f holds what they lose, and the length of z is the cell's depth.
    """

    def __init__(self, num_components: int, width: int) -> None:
        super().__init__()
        self.input_scale = math.sqrt(num_components)  # f has length 1, so its coordinates are small
        self.linear = nn.Linear(num_components + 1, width, bias=False)
        nn.init.normal_(self.linear.weight, std=0.02)

    def forward(self, f: Tensor, log_length: Tensor) -> Tensor:
        scores = f * self.input_scale * torch.exp(log_length - _LOG_LENGTH)
        return self.linear(torch.cat([scores, log_length - _LOG_LENGTH], dim=1))[:, None]


class CellDecoder(nn.Module):
    """Tokens ``[B, N, D]``, f and log length -> ``[B, G]`` log1p CP10K. Starts as the decoder of stage 1."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D = config.num_tokens, config.width
        self.decoder_position = nn.Parameter(torch.zeros(N, D))
        self.decoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.head = GeneHead(config.num_genes, N, D, shared=config.head == "shared")
        self.score_reader = ScoreReader(config.components, D) if config.decoder_reads_f else None

    @torch.no_grad()
    def start(self, stage1: PathwayAutoencoder) -> None:
        """Take the weights of a trained stage 1."""
        self.decoder_position.copy_(stage1.decoder_position)
        self.decoder.load_state_dict(stage1.decoder.state_dict())
        self.head.load_state_dict(stage1.head.state_dict())

    def forward(self, tokens: Tensor, f: Tensor, log_length: Tensor) -> Tensor:
        decoded = self.decoder(tokens + self.decoder_position)
        if self.score_reader is not None:
            decoded = decoded + self.score_reader(f, log_length)
        return self.head(decoded)


class TokenDecoder(nn.Module):
    """Codes ``[B, N]`` int32, ``f [B, R]`` and ``log |z| [B, 1]`` -> decoded tokens ``[B, N, D]`` for the gene head.

    Without ``decoder_reads_f``, f and the length have no effect. Tensor names are those of ``weights.safetensors``.
    """

    code_tokens: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("code_tokens", torch.zeros(config.num_codes, config.width))
        self.decoder_position = nn.Parameter(torch.zeros(config.num_tokens, config.width))
        self.decoder = Transformer(config.width, config.num_layers, config.num_heads, config.norm)
        self.score_reader = ScoreReader(config.components, config.width) if config.decoder_reads_f else None

    def forward(self, codes: Tensor, f: Tensor, log_length: Tensor) -> Tensor:
        decoded = self.decoder(self.code_tokens[codes.to(torch.int64)] + self.decoder_position)  # [B, N, D]
        if self.score_reader is None:
            return decoded + 0.0 * (f.sum(dim=1) + log_length[:, 0])[:, None, None]  # keeps both inputs in the graph
        return decoded + self.score_reader(f, log_length)
