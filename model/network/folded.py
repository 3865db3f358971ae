"""The network of a bundle: everything that training needed and serving does not is folded away.

``A, C`` replace P, alpha, E_gene, W_v, W_o and the standardisation; the code table replaces the quantizer's affine map;
in the last layer of the cell encoder only the cell token is computed.
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
    """Padded sparse cells -> ``h_C`` and pathway codes.

    Inputs: gene_index ``[B, L]`` int32 (padding: 0), value ``[B, L]`` float32 log1p CP10K (padding: 0), measured_offset
    ``[B, N]`` float32 (sum of C over the measured genes of the cell's file), num_measured ``[B, 1]`` float32.
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
        """``f [B, N]``, standardised (with sum pooling but for a shift, which is part of the positions)."""
        expressed = (value > 0).to(value.dtype)
        n = expressed.sum(dim=1, keepdim=True)
        index = gene_index.to(torch.int64)
        marks = torch.bmm(expressed[:, None], self.offset[index])[:, 0]  # M C
        total = torch.bmm(value[:, None], self.slope[index])[:, 0] + marks  # X A + M C
        zeros = num_measured - n
        any_zero = (zeros > 0).to(value.dtype)
        z0 = any_zero * (measured_offset - marks) / zeros.clamp(min=1.0)
        return total + z0 if self.pooling == "sum" else (total + z0) / (n + any_zero)

    def nearest(self, f: Tensor) -> Tensor:
        """``[B, N]`` -> code indices ``[B, N]``."""
        encoded = self.encoder(f[:, :, None] * self.token_scale + self.encoder_position)
        point = self.down(encoded) * self.point_scale + self.point_shift
        length = (self.code_table * self.code_table).sum(-1)
        return (length - 2.0 * torch.matmul(point, self.code_table.T)).argmin(-1)

    def forward(
        self, gene_index: Tensor, value: Tensor, measured_offset: Tensor, num_measured: Tensor
    ) -> tuple[Tensor, Tensor]:
        codes = self.nearest(self.read_out(gene_index, value, measured_offset, num_measured))
        return self.cell_encoder.embed(self.code_tokens[codes]), codes.to(torch.int32)


@torch.no_grad()
def fold(stage1: PathwayAutoencoder, cells: CellEncoder) -> InferenceNetwork:
    """Both trained stages as one inference network, equal to them in exact arithmetic.

    Raises ValueError for a network that cannot be folded (a value map of two layers).
    """
    config = stage1.config
    if config.value_map != "linear":
        raise ValueError(
            f"value_map={config.value_map} cannot be exported: it has no tables A and C, which serving needs. "
            "Train with value_map=linear."
        )
    network = InferenceNetwork(config)
    mean, variance = stage1.standardise.running_mean, stage1.standardise.running_var
    scale = (variance + stage1.standardise.eps).rsqrt()
    slope, offset = stage1.embedding.tables()
    network.slope.copy_(slope * scale)
    network.token_scale.copy_(stage1.token_scale)
    network.encoder_position.copy_(stage1.encoder_position)
    if config.pooling == "mean":
        # f is a mean over expressed genes and z0, so a shift of every gene's offset is a shift of f.
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
