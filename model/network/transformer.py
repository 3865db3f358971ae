"""The transformer of every encoder and decoder (paper 3.2). Letters: B cells, T tokens of the sequence, D width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scpalm.model.network.config import NormPlace


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of one cell."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        """``[B, T, D] -> [B, T, D]``. With ``num_queries``, only that many tokens from the start are computed."""
        return self.mix(self.qkv(x), num_queries)

    def mix(self, qkv: Tensor, num_queries: int | None = None) -> Tensor:
        """The projections ``[B, T, 3 D]`` of all tokens -> ``[B, T, D]``."""
        B, T, width = qkv.shape
        D = width // 3
        # [B, T, 3 D] -> [B, T, 3, heads, D / heads] -> [3, B, heads, T, D / heads]
        q, k, v = qkv.reshape(B, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        if num_queries is not None:
            q = q[:, :, :num_queries]
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, T, D / heads]
        return self.out(mixed.transpose(1, 2).reshape(B, -1, D))  # [B, T, heads, D / heads] -> [B, T, D]


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input. ``norm``: LN before the branch or after the sum."""

    def __init__(self, width: int, num_heads: int, norm: NormPlace = "pre") -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, num_queries: int | None = None, qkv: Tensor | None = None) -> Tensor:
        """``[B, T, D] -> [B, T, D]``. ``qkv [B, T, 3 D]``: the projections of x, where they are known."""
        if qkv is None:
            mixed = self.attention(self.norm1(x) if self.pre else x, num_queries)
        else:
            mixed = self.attention.mix(qkv, num_queries)
        x = x[:, : mixed.shape[1]] + mixed
        if self.pre:
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x)
        return self.norm2(x + self.feed_forward(x))


class Transformer(nn.Module):
    """``[B, T, D] -> [B, T, D]``: layers (GELU, feed-forward width 4 D, no dropout) and a final LN.

    Post-LN layers already end in an LN. The final one is kept for both kinds, so that they have the same parameters.
    """

    def __init__(self, width: int, num_layers: int, num_heads: int, norm: NormPlace = "pre") -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, num_heads, norm) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def first_token(self, x: Tensor, qkv: Tensor | None = None, num_queries: int = 1) -> Tensor:
        """``[B, T, D] -> [B, D]``: only the first token.

        ``qkv [B, T, 3 D]``: the projections of x in the first layer, where they are known. ``num_queries``: how many
        tokens the last layer computes.
        """
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, num_queries if number == last else None, qkv if number == 0 else None)
        return self.norm(x)[:, 0]
