"""Stage 2: a learned cell token aggregates the pathway tokens of a cell into h_C (paper 3.3, Algorithms 1 and 3).

Letters: B cells, N tokens per cell, D width, G genes; n is the number of tokens that are kept (N in inference).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import GeneHead
from scpalm.model.network.transformer import Transformer


class CellEncoder(nn.Module):
    """Pathway tokens ``[B, N, D]``, or a subset of them with its positions -> ``h_C [B, D]``.

    The cell token starts as ``e_C`` plus a linear read-in of the kept tokens, ``sum_j (c_j - mean_j) R_j N / n``, where
    ``c_j`` is the token in code space. Attention and feed-forward branches start at zero and add to it. The read-in has
    a closed form; learning the same sum through attention takes many thousand steps.
    """

    token_mean: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D = config.num_tokens, config.width
        code_width = config.code_width or D
        self.cell_token = nn.Parameter(torch.zeros(D))  # e_C
        self.narrow = nn.Linear(D, code_width)
        self.register_buffer("token_mean", torch.zeros(N, code_width))
        self.read_in = nn.Parameter(torch.randn(N, code_width, D) / (N * code_width) ** 0.5)  # R
        self.position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.transformer = Transformer(D, config.num_layers, config.num_heads, config.norm)
        for layer in self.transformer.layers:
            for name in ("attention.out.weight", "feed_forward.2.weight"):
                nn.init.zeros_(layer.get_parameter(name))

    def features(self, tokens: Tensor) -> Tensor:
        """``[B, N, D] -> [B, N, code_width]``: tokens in code space, with mean 0 over the corpus."""
        return self.narrow(tokens) - self.token_mean

    def initial_token(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """``[B, N, D] -> [B, D]``: the cell token before the first layer."""
        features = self.features(tokens)  # [B, N, code_width]
        B, N, _ = features.shape
        if kept is not None:
            mask = torch.zeros(B, N, dtype=features.dtype, device=features.device).scatter_(1, kept, N / kept.shape[1])
            features = features * mask[:, :, None]
        # [B, N * code_width] @ [N * code_width, D]
        return self.cell_token + features.flatten(1) @ self.read_in.flatten(0, 1)

    def sequence(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """``[B, 1 + n, D]``: the cell token, then the kept tokens with their positions. ``kept [B, n]``: sorted."""
        placed = tokens + self.position  # [B, N, D]
        if kept is not None:
            placed = placed.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))  # [B, n, D]
        return torch.cat([self.initial_token(tokens, kept)[:, None], placed], dim=1)

    def forward(self, tokens: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``h_C [B, D]`` and ``h_i [B, n, D]``."""
        h = self.transformer(self.sequence(tokens, kept))  # [B, 1 + n, D]
        return h[:, 0], h[:, 1:]

    def embed(self, tokens: Tensor) -> Tensor:
        """Inference: ``[B, N, D] -> h_C [B, D]`` from all tokens."""
        return self.transformer.first_token(self.sequence(tokens))


class CellDecoder(nn.Module):
    """Kept tokens, and h_C depending on ``decoder_sees_cell`` -> expression of all genes ``[B, G]``."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D = config.num_tokens, config.width
        self.sees_cell = config.decoder_sees_cell
        self.mask_token = nn.Parameter(torch.randn(D) * 0.5)  # e_M
        self.position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.from_cell = nn.Linear(D, D)
        self.scores = nn.Linear(D, N)  # h_C -> the cell's spectral scores
        self.transformer = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.head = GeneHead(config.num_genes, N, D, shared=config.head == "shared")

    def forward(self, cell: Tensor, kept_tokens: Tensor, kept: Tensor) -> Tensor:
        """cell ``[B, D]``, kept_tokens ``[B, n, D]``, kept ``[B, n]`` -> ``[B, G]`` log1p CP10K."""
        B, _, D = kept_tokens.shape
        x = self.mask_token.expand(B, len(self.position), D)  # [B, N, D]
        x = x.scatter(1, kept[:, :, None].expand(-1, -1, D), kept_tokens) + self.position  # [B, N, D]
        if self.sees_cell == "add":
            x = x + self.from_cell(cell)[:, None]  # [B, N, D]
        elif self.sees_cell == "prepend":
            x = torch.cat([self.from_cell(cell)[:, None], x], dim=1)  # [B, 1 + N, D]
        h = self.transformer(x)
        return self.head(h[:, 1:] if self.sees_cell == "prepend" else h)
