"""Stage 2: one learned token gathers the pathway tokens of a cell into h_C (paper 3.3, Algorithms 1 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import GeneHead
from scpalm.model.network.transformer import Transformer


class CellEncoder(nn.Module):
    """Pathway tokens ``[B, N, D]`` (or any subset with its positions) -> ``h_C [B, D]``.

    The cell token enters as ``e_C`` plus a linear read-in of the kept tokens, ``sum_j (c_j - mean_j) R_j N / n`` with
    ``c_j`` the token in code space; attention and feed-forward branches start at zero and add to it. The read-in has a
    closed form; a cell token that must learn the plain sum through attention needs many thousand steps for it.
    """

    token_mean: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D = config.num_tokens, config.width
        narrow = config.code_width or D
        self.cell_token = nn.Parameter(torch.zeros(D))  # e_C
        self.narrow = nn.Linear(D, narrow)
        self.register_buffer("token_mean", torch.zeros(N, narrow))
        self.read_in = nn.Parameter(torch.randn(N, narrow, D) / (N * narrow) ** 0.5)  # R
        self.position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.transformer = Transformer(D, config.num_layers, config.num_heads, config.norm)
        for layer in self.transformer.layers:
            for name in ("attention.out.weight", "feed_forward.2.weight"):
                nn.init.zeros_(layer.get_parameter(name))

    def features(self, tokens: Tensor) -> Tensor:
        """``[B, N, D] -> [B, N, narrow]``: tokens in code space, mean 0 over the corpus."""
        return self.narrow(tokens) - self.token_mean

    def start(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """``[B, D]``: the cell token before the first layer."""
        features = self.features(tokens)
        B, N, _ = features.shape
        if kept is not None:
            mask = torch.zeros(B, N, dtype=features.dtype, device=features.device).scatter_(1, kept, N / kept.shape[1])
            features = features * mask[:, :, None]
        return self.cell_token + features.flatten(1) @ self.read_in.flatten(0, 1)

    def sequence(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """``[B, 1 + kept, D]``: the cell token, then the kept tokens with their positions. kept: ``[B, n]`` sorted."""
        placed = tokens + self.position
        if kept is not None:
            placed = placed.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([self.start(tokens, kept)[:, None], placed], dim=1)

    def forward(self, tokens: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``h_C [B, D]`` and ``h_i [B, kept, D]``."""
        h = self.transformer(self.sequence(tokens, kept))
        return h[:, 0], h[:, 1:]

    def embed(self, tokens: Tensor) -> Tensor:
        """``[B, N, D] -> h_C [B, D]`` from all tokens, as in inference."""
        return self.transformer.first_token(self.sequence(tokens))


class CellDecoder(nn.Module):
    """Kept tokens (and, by ``decoder_sees_cell``, h_C) -> the expression of all regions ``[B, G]``."""

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
        x = self.mask_token.expand(B, len(self.position), D)
        x = x.scatter(1, kept[:, :, None].expand(-1, -1, D), kept_tokens) + self.position
        if self.sees_cell == "add":
            x = x + self.from_cell(cell)[:, None]
        elif self.sees_cell == "prepend":
            x = torch.cat([self.from_cell(cell)[:, None], x], dim=1)
        h = self.transformer(x)
        return self.head(h[:, 1:] if self.sees_cell == "prepend" else h)
