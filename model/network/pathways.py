"""Stage 1: the pathway autoencoder (paper 3.2). Letters: B cells, G genes, N tokens, D width, S genes per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scpalm.model.network.collective import all_reduce_sum, world_size
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import GeneEmbedding, SparseCells
from scpalm.model.network.quantizer import CodeSizes, Quantized, Quantizer
from scpalm.model.network.read_out import LinearReadOut
from scpalm.model.network.transformer import Transformer


class GeneHead(nn.Module):
    """Each gene has its own read-out of its token: ``o_g = w_g . h_token(g) + b_g``.

    Token i holds genes ``[S i, S (i + 1))``. ``shared``: one ``Linear(D -> S)`` for all tokens. It restricts the
    loadings of G genes to D directions and collapses to the gene means.
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
        weight = self.weight.expand(tokens.shape[1], -1, -1)  # [N, D, S]
        out = torch.bmm(tokens.transpose(0, 1), weight)  # [N, B, D] @ [N, D, S] -> [N, B, S]
        return out.transpose(0, 1).reshape(len(tokens), -1)[:, : self.num_genes] + self.bias  # [B, N * S] -> [B, G]


class Standardise(nn.BatchNorm1d):
    """Batch norm of ``[B, N]`` without affine, over the cells of all processes (in torch, SyncBatchNorm needs GPUs)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_tokens: int, momentum: float = 0.02) -> None:
        super().__init__(num_tokens, affine=False, momentum=momentum)
        self.rate = momentum

    def forward(self, f: Tensor) -> Tensor:
        if world_size() == 1 or not self.training:
            return super().forward(f)
        count = world_size() * len(f)
        mean = all_reduce_sum(f.sum(0)) / count
        variance = all_reduce_sum((f - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.rate)
            self.running_var.lerp_(variance * count / (count - 1), self.rate)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return (f - mean) * (variance + self.eps).rsqrt()


@dataclass
class Reconstruction:
    """Output of stage 1.

    Attributes:
        values: ``[B, G]`` reconstructed log1p CP10K.
        scores: ``[B, N]`` predicted spectral scores.
        quantized: output of the quantizer; None while it is bypassed.
        encoded: ``[B, N, D]`` output of the encoder.
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
        self.embedding: GeneEmbedding | LinearReadOut = (
            LinearReadOut(config)
            if config.pooling == "solve"
            else GeneEmbedding(config.num_genes, N, config.gene_width, config.pooling, config.value_map)
        )
        self.standardise = Standardise(N)
        # P' starts nearly equal for all tokens. Tokens share the codes, so all K codes then divide one direction finely
        # from the first step. With a separate direction each, a token would be left with a handful of codes.
        self.token_scale = nn.Parameter(torch.randn(1, D) * 0.5 + torch.randn(N, D) * 0.05)
        # Without positions, LN would divide the only signal, the scalar f_j, out of the attention branch.
        self.encoder_position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.encoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.quantizer = Quantizer(CodeSizes(N, D, config.num_codes, config.code_width), affine=config.affine)
        self.decoder_position = nn.Parameter(torch.randn(N, D) * 0.5)
        self.decoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.head = GeneHead(config.num_genes, N, D, shared=config.head == "shared")
        self.score_weight = nn.Parameter((torch.randn(1, D) + torch.randn(N, D) * 0.1) / D**0.5)
        self.score_bias = nn.Parameter(torch.zeros(N))

    def scores(self, decoded: Tensor) -> Tensor:
        """Decoded tokens ``[B, N, D]`` -> ``[B, N]``: token j predicts the cell's spectral score j."""
        return (decoded * self.score_weight).sum(-1) + self.score_bias

    def read_out(self, cells: SparseCells) -> Tensor:
        """Read-outs ``f [B, N]``, standardised."""
        return self.standardise(self.embedding(cells))

    def encode_read_out(self, f: Tensor) -> Tensor:
        """``f [B, N]`` -> encoder output ``[B, N, D]``, before the quantizer."""
        return self.encoder(f[:, :, None] * self.token_scale + self.encoder_position)

    def encode(self, cells: SparseCells) -> Tensor:
        """Code index of each token, ``[B, N]`` int64."""
        encoded = self.encode_read_out(self.read_out(cells))
        return self.quantizer.nearest(self.quantizer.standardise(encoded))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Quantized tokens ``[B, N, D]`` -> decoded tokens ``[B, N, D]``, the input of the heads."""
        return self.decoder(tokens + self.decoder_position)

    def decode(self, tokens: Tensor) -> Tensor:
        """Quantized tokens ``[B, N, D]`` -> ``[B, G]`` log1p CP10K."""
        return self.head(self.decode_tokens(tokens))

    def forward(self, cells: SparseCells, *, quantize: bool = True) -> Reconstruction:
        encoded = self.encode_read_out(self.read_out(cells))  # [B, N, D]
        quantized = self.quantizer(encoded) if quantize else None
        # Without codes, still pass through the narrow layers: the codes are initialised from their output.
        tokens = self.quantizer.up(self.quantizer.down(encoded)) if quantized is None else quantized.tokens
        decoded = self.decode_tokens(tokens)
        return Reconstruction(self.head(decoded), self.scores(decoded), quantized, encoded)
