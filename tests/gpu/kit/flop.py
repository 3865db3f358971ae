"""FLOP that a cell needs in scPaLM: matrix products and attention, without padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.sessions.base import network_config


def count_flop(network: nn.Module, *inputs: Tensor) -> float:
    """FLOP of one forward pass."""
    # PyTorch counts attention on a CPU only when it is computed as matrix products.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return float(counter.get_total_flops())


def token_flop(bundle: Bundle) -> float:
    """Of both encoders, with the cell token alone in the last layer: 5.4 GFLOP for `base`."""
    config = network_config(bundle)
    return count_flop(InferenceNetwork(config), torch.zeros(1, config.components), torch.zeros(1, 1))


def embedding_flop(bundle: Bundle, rows: Rows) -> float:
    """Of the embedding of a mean cell of these rows: read-out, correction and view head."""
    config = network_config(bundle)
    R, H, hidden = config.components, config.view_width, config.view_hidden
    head = R * H + (R + 1) * hidden + hidden * H if H else 0
    return float(2 * (rows.lengths().mean() * R + R * R + head))
