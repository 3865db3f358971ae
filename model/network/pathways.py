"""Stage 1: the pathway autoencoder (paper 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scpalm.model.network.collective import total, world_size
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import GeneEmbedding, SparseCells
from scpalm.model.network.quantizer import CodeSizes, Quantized, Quantizer
from scpalm.model.network.transformer import Transformer


class GeneHead(nn.Module):
    """Every gene reads its own token: ``o_g = w_g . h_token(g) + b_g``; token i owns genes ``[S i, S (i + 1))``.

    ``shared``: one ``Linear(D -> S)`` for all tokens. It confines the loadings of G genes to D directions and collapses
    to the gene means.
    """

    def __init__(self, num_genes: int, num_tokens: int, width: int, *, shared: bool = False) -> None:
        super().__init__()
        self.num_genes = num_genes
        genes_per_token = -(-num_genes // num_tokens)
        rows = 1 if shared else num_tokens
        self.weight = nn.Parameter(torch.randn(rows, width, genes_per_token) * 0.02 / width**0.5)
        self.bias = nn.Parameter(torch.zeros(num_genes))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, D] -> [B, G]`` log1p CP10K."""
        weight = self.weight.expand(tokens.shape[1], -1, -1)
        out = torch.bmm(tokens.transpose(0, 1), weight)  # [N, B, S]
        return out.transpose(0, 1).reshape(len(tokens), -1)[:, : self.num_genes] + self.bias


class Standardise(nn.BatchNorm1d):
    """Batch norm of ``[B, N]`` without affine, over the cells of all processes (torch's own does so on GPUs only)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_tokens: int, momentum: float = 0.02) -> None:
        super().__init__(num_tokens, affine=False, momentum=momentum)
        self.rate = momentum

    def forward(self, f: Tensor) -> Tensor:
        if world_size() == 1 or not self.training:
            return super().forward(f)
        count = world_size() * len(f)
        mean = total(f.sum(0)) / count
        variance = total((f - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.rate)
            self.running_var.lerp_(variance * count / (count - 1), self.rate)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return (f - mean) * (variance + self.eps).rsqrt()


@dataclass
class Reconstruction:
    """What stage 1 gives back.

    Attributes:
        values: ``[B, G]`` log1p CP10K. scores: ``[B, N]`` predicted spectral scores. encoded: ``[B, N, D]``.
        quantized: None while the quantizer is bypassed.
    """

    values: Tensor
    scores: Tensor
    quantized: Quantized | None
    encoded: Tensor


class PathwayAutoencoder(nn.Module):
    """Genes -> N read-outs -> encoder -> pathway codes -> decoder -> genes."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D = config.num_tokens, config.width
        self.config = config
        self.embedding = GeneEmbedding(config.num_genes, N, config.gene_width, config.pooling, config.value_map)
        self.standardise = Standardise(N)
        # P' starts nearly alike for all tokens: then the codes, which all tokens share, cut one line finely from the
        # first step on. Directions of their own would leave each token a handful of codes.
        self.token_scale = nn.Parameter(torch.randn(1, D) * 0.5 + torch.randn(N, D) * 0.05)
        # Without positions LN divides the only signal, the scalar f_j, out of the attention branch.
        self.encoder_position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.encoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.quantizer = Quantizer(CodeSizes(N, D, config.num_codes, config.code_width), affine=config.affine)
        self.decoder_position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.decoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.head = GeneHead(config.num_genes, N, D, shared=config.head == "shared")
        self.score_weight = nn.Parameter((torch.randn(1, D) + torch.randn(N, D) * 0.1) / D**0.5)
        self.score_bias = nn.Parameter(torch.zeros(N))

    def scores(self, decoded: Tensor) -> Tensor:
        """``[B, N, D]`` decoded tokens -> ``[B, N]``: token j predicts the cell's j-th spectral score."""
        return (decoded * self.score_weight).sum(-1) + self.score_bias

    def read_out(self, cells: SparseCells) -> Tensor:
        """``f [B, N]``, standardised."""
        return self.standardise(self.embedding(cells))

    def encode_read_out(self, f: Tensor) -> Tensor:
        """``[B, N] -> [B, N, D]``, before the quantizer."""
        return self.encoder(f[:, :, None] * self.token_scale + self.encoder_position)

    def encode(self, cells: SparseCells) -> Tensor:
        """Code index of each token, ``[B, N]`` int64."""
        encoded = self.encode_read_out(self.read_out(cells))
        return self.quantizer.nearest(self.quantizer.standardise(encoded))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """``[B, N, D]`` tokens -> ``[B, N, D]``, what the heads read."""
        return self.decoder(tokens + self.decoder_position)

    def decode(self, tokens: Tensor) -> Tensor:
        """``[B, N, D]`` tokens -> ``[B, G]`` log1p CP10K."""
        return self.head(self.decode_tokens(tokens))

    def forward(self, cells: SparseCells, *, quantize: bool = True) -> Reconstruction:
        encoded = self.encode_read_out(self.read_out(cells))
        quantized = self.quantizer(encoded) if quantize else None
        # Without the codes: the same narrow passage, which is what the codes start from.
        tokens = self.quantizer.up(self.quantizer.down(encoded)) if quantized is None else quantized.tokens
        decoded = self.decode_tokens(tokens)
        return Reconstruction(self.head(decoded), self.scores(decoded), quantized, encoded)
