"""The inference network of a bundle: inputs of the tokens -> h_C and pathway codes. `fold` removes what only training
needs.

The standardisation becomes a scale and a shift of each token's input, and the code table replaces the quantizer's
affine map. The last layer of the cell encoder computes only the cell token. Letters: B cells, R components, N tokens, D
width, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.transformer import Transformer

INPUTS = ("f", "log_length")
OUTPUTS = ("h_C", "codes")


class InferenceNetwork(nn.Module):
    """``f [B, R]`` and ``log |z| [B, 1]`` -> ``h_C [B, D]`` and pathway codes ``[B, N]``."""

    read_scale: Tensor
    read_shift: Tensor
    point_scale: Tensor
    point_shift: Tensor
    code_table: Tensor
    code_tokens: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        N, D, K = config.num_tokens, config.width, config.num_codes
        self.num_tokens = N
        narrow = config.code_width or D
        self.register_buffer("read_scale", torch.ones(N))
        self.register_buffer("read_shift", torch.zeros(N))
        self.token_scale = nn.Parameter(torch.zeros(N, D))
        self.encoder_position = nn.Parameter(torch.zeros(N, D))
        self.encoder = Transformer(D, config.num_layers, config.num_heads, config.norm)
        self.down = nn.Linear(D, narrow)
        self.register_buffer("point_scale", torch.ones(N, narrow))
        self.register_buffer("point_shift", torch.zeros(N, narrow))
        self.register_buffer("code_table", torch.zeros(K, narrow))
        self.register_buffer("code_tokens", torch.zeros(K, D))
        self.cell_encoder = CellEncoder(config)

    def inputs_of_tokens(self, f: Tensor, log_length: Tensor) -> Tensor:
        """``[B, N]``, standardised."""
        return torch.cat([f[:, : self.num_tokens - 1], log_length], dim=1) * self.read_scale + self.read_shift

    def nearest(self, x: Tensor) -> Tensor:
        """Inputs of the tokens ``[B, N]`` -> code indices ``[B, N]`` int64."""
        return self.nearest_of(self.encoder(x[:, :, None] * self.token_scale + self.encoder_position))

    def nearest_of(self, encoded: Tensor) -> Tensor:
        """Encoded tokens ``[B, N, D]`` -> code indices ``[B, N]`` int64."""
        point = self.down(encoded) * self.point_scale + self.point_shift  # [B, N, code_width]
        squared_norm = (self.code_table * self.code_table).sum(-1)  # [K]
        return (squared_norm - 2.0 * torch.matmul(point, self.code_table.T)).argmin(-1)  # [B, N, K] -> [B, N]

    def forward(self, f: Tensor, log_length: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.nearest(self.inputs_of_tokens(f, log_length))
        return self.cell_encoder.embed(self.code_tokens[codes]), codes.to(torch.int32)


@torch.no_grad()
def fold(stage1: PathwayAutoencoder, cells: CellEncoder) -> InferenceNetwork:
    """Fold both trained stages into one inference network. In exact arithmetic the outputs are the same.

    Raises ValueError for a network with another read-out than ``pooling=solve``, which cannot be served.
    """
    config = stage1.config
    if config.pooling != "solve":
        raise ValueError(f"pooling={config.pooling} cannot be exported. Train with pooling=solve.")
    network = InferenceNetwork(config)
    scale = (stage1.standardise.running_var + stage1.standardise.eps).rsqrt()
    network.read_scale.copy_(scale)
    network.read_shift.copy_(-stage1.standardise.running_mean * scale)
    network.token_scale.copy_(stage1.token_scale)
    network.encoder_position.copy_(stage1.encoder_position)
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
