"""The inference network of a bundle. `fold` removes what only training needs.

``A`` and ``C`` replace P, alpha, E_gene, W_v, W_o and the standardisation. The code table replaces the quantizer's
affine map. The last layer of the cell encoder computes only the cell token. Letters: B cells, G genes, N tokens, D
width, K codes, L padded number of expressed genes, n expressed genes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.transformer import Transformer

INPUTS = ("gene_index", "value", "measured_offset", "num_measured")
OUTPUTS = ("embedding", "codes")


class InferenceNetwork(nn.Module):
    """Padded sparse cells -> ``h_C [B, D]`` and pathway codes ``[B, N]``.

    Inputs of `forward`:
        gene_index: ``[B, L]`` int32, padded with 0.
        value: ``[B, L]`` float32 log1p CP10K, padded with 0.
        measured_offset: ``[B, N]`` float32, sum of C over the genes that the cell's file measured.
        num_measured: ``[B, 1]`` float32, number of those genes.
    """

    slope: Tensor
    offset: Tensor
    point_scale: Tensor
    point_shift: Tensor
    code_table: Tensor
    code_tokens: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D, K = config.num_tokens, config.width, config.num_codes
        self.pooling = config.pooling
        narrow = config.code_width or D
        self.register_buffer("slope", torch.zeros(config.num_genes, N))  # A
        self.register_buffer("offset", torch.zeros(config.num_genes, N))  # C
        self.token_scale = nn.Parameter(torch.zeros(N, D))
        self.encoder_position = nn.Parameter(torch.zeros(N, D))
        self.encoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.down = nn.Linear(D, narrow)
        self.register_buffer("point_scale", torch.ones(N, narrow))
        self.register_buffer("point_shift", torch.zeros(N, narrow))
        self.register_buffer("code_table", torch.zeros(K, narrow))
        self.register_buffer("code_tokens", torch.zeros(K, D))
        self.cell_encoder = CellEncoder(config)

    def read_out(self, gene_index: Tensor, value: Tensor, measured_offset: Tensor, num_measured: Tensor) -> Tensor:
        """``f [B, N]``, standardised. With sum pooling a shift is missing; `fold` adds it to the positions."""
        expressed = (value > 0).to(value.dtype)  # M [B, L]
        n = expressed.sum(dim=1, keepdim=True)  # [B, 1]
        index = gene_index.to(torch.int64)
        offsets = torch.bmm(expressed[:, None], self.offset[index])[:, 0]  # M C: [B, 1, L] @ [B, L, N] -> [B, N]
        total = torch.bmm(value[:, None], self.slope[index])[:, 0] + offsets  # X A + M C [B, N]
        zeros = num_measured - n  # [B, 1]
        any_zero = (zeros > 0).to(value.dtype)
        z0 = any_zero * (measured_offset - offsets) / zeros.clamp(min=1.0)  # [B, N]
        return total + z0 if self.pooling == "sum" else (total + z0) / (n + any_zero)

    def nearest(self, f: Tensor) -> Tensor:
        """Read-outs ``f [B, N]`` -> code indices ``[B, N]`` int64."""
        encoded = self.encoder(f[:, :, None] * self.token_scale + self.encoder_position)  # [B, N, D]
        point = self.down(encoded) * self.point_scale + self.point_shift  # [B, N, code_width]
        squared_norm = (self.code_table * self.code_table).sum(-1)  # [K]
        return (squared_norm - 2.0 * torch.matmul(point, self.code_table.T)).argmin(-1)  # [B, N, K] -> [B, N]

    def forward(
        self, gene_index: Tensor, value: Tensor, measured_offset: Tensor, num_measured: Tensor
    ) -> tuple[Tensor, Tensor]:
        codes = self.nearest(self.read_out(gene_index, value, measured_offset, num_measured))
        return self.cell_encoder.embed(self.code_tokens[codes]), codes.to(torch.int32)


@torch.no_grad()
def fold(stage1: PathwayAutoencoder, cells: CellEncoder) -> InferenceNetwork:
    """Fold both trained stages into one inference network. In exact arithmetic the outputs are the same.

    Raises ValueError for a network with a two-layer value map, which cannot be folded.
    """
    config = stage1.config
    if config.value_map != "linear":
        raise ValueError(
            f"value_map={config.value_map} cannot be exported: serving needs the tables A and C, which it does not "
            "have. Train with value_map=linear."
        )
    network = InferenceNetwork(config)
    mean, variance = stage1.standardise.running_mean, stage1.standardise.running_var
    scale = (variance + stage1.standardise.eps).rsqrt()
    slope, offset = stage1.embedding.tables()
    network.slope.copy_(slope * scale)
    network.token_scale.copy_(stage1.token_scale)
    network.encoder_position.copy_(stage1.encoder_position)
    if config.pooling == "mean":
        # f is a mean over the expressed genes and z0, so shifting the offset of every gene shifts f.
        network.offset.copy_((offset - mean) * scale)
    else:
        network.offset.copy_(offset * scale)
        network.encoder_position.sub_((mean * scale)[:, None] * stage1.token_scale)
    network.encoder.load_state_dict(stage1.encoder.state_dict())
    quantizer = stage1.quantizer
    if isinstance(quantizer.down, nn.Linear):
        network.down.load_state_dict(quantizer.down.state_dict())
    else:
        network.down.weight.copy_(torch.eye(config.width))
        network.down.bias.zero_()
    network.point_scale.copy_(1 / quantizer.input_std)
    network.point_shift.copy_(-quantizer.input_mean / quantizer.input_std)
    network.code_table.copy_(quantizer.table())
    network.code_tokens.copy_(quantizer.up(quantizer.table()))
    network.cell_encoder.load_state_dict(cells.state_dict())
    return network.eval()
