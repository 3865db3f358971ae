"""The TorchScript session: builds the folded network from the bundle's weights and traces it when it is opened."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.decoder import TokenDecoder
from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.sessions.base import WEIGHTS_FILE, BucketedSession, network_config
from scpalm.model.sessions.shapes import Padded, example

# Suffix of the tensor with the scale of each row, for weights stored as 8-bit integers.
INT8_SCALE = ".int8_scale"
Network = TypeVar("Network", InferenceNetwork, TokenDecoder)


def load_network(bundle: Bundle) -> InferenceNetwork:
    """The folded network in float32. Raises BundleError if a tensor is missing or has the wrong shape."""
    return _filled(InferenceNetwork(network_config(bundle)), bundle)


def load_decoder(bundle: Bundle) -> TokenDecoder:
    """The decoder in float32. Raises BundleError if a tensor is missing or has the wrong shape."""
    return _filled(TokenDecoder(network_config(bundle)), bundle)


def _filled(network: Network, bundle: Bundle) -> Network:
    stored = load_file(bundle.file(WEIGHTS_FILE))
    wanted = {name: _dequantised(stored, name) for name in network.state_dict() if name in stored}
    try:
        network.load_state_dict(wanted)
    except RuntimeError as error:
        raise BundleError(f"{bundle.path}/{WEIGHTS_FILE} does not fit the network: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)


def _dequantised(stored: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    tensor, scale = stored[name].float(), stored.get(name + INT8_SCALE)
    return tensor if scale is None else tensor * scale[:, None]


def trace(network: InferenceNetwork, config: NetworkConfig) -> torch.jit.ScriptModule:
    """TorchScript of the network, for any batch size and padded length."""
    batch = example(256, 2, config.num_tokens)
    inputs = tuple(torch.from_numpy(array) for array in batch.feed().values())
    return torch.jit.trace(network, inputs, check_trace=False)


class TorchScriptSession(BucketedSession):
    """Implements `Session` with PyTorch. Raises BundleError, or ValueError for an unknown device."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        kind, colon, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not number.isdigit()):
            raise ValueError(f"Unknown device '{device}': choose auto, cpu, cuda or cuda:n.")
        if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"There is no device '{device}': PyTorch finds {torch.cuda.device_count()} GPUs. Use cpu or auto."
            )
        self._device = torch.device(device)
        super().__init__(bundle, runtime="torchscript", device=str(self._device), threads=threads)
        self._module = trace(load_network(bundle), self._config).to(self._device)
        self._decoder: TokenDecoder | None = None

    @torch.inference_mode()
    def _run_padded(self, batch: Padded) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        inputs = [torch.from_numpy(array).to(self._device) for array in batch.feed().values()]
        embedding, codes = self._module(*inputs)
        return embedding.cpu().numpy(), codes.cpu().numpy()

    @torch.inference_mode()
    def _decode_padded(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        if self._decoder is None:
            self._decoder = load_decoder(self._bundle).to(self._device)
        return self._decoder(torch.from_numpy(codes).to(self._device)).cpu().numpy()
