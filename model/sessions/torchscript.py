"""The TorchScript session: builds the folded network from the bundle's weights and traces it when it is opened."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.decoder import TokenDecoder
from scpalm.model.network.folded import InferenceNetwork
from scpalm.model.network.read_out import EmbeddingNetwork
from scpalm.model.sessions.base import WEIGHTS_FILE, BucketedSession, network_config
from scpalm.model.sessions.shapes import Padded, example

# Suffix of the tensor with the scale of each row, for weights stored as 8-bit integers.
INT8_SCALE = ".int8_scale"
Network = TypeVar("Network", EmbeddingNetwork, InferenceNetwork, TokenDecoder)


def load_embedding(bundle: Bundle) -> EmbeddingNetwork:
    """The embedding network in float32. Raises BundleError if a tensor is missing or has the wrong shape."""
    return _filled(EmbeddingNetwork(network_config(bundle)), bundle)


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


def _dequantised(stored: dict[str, Tensor], name: str) -> Tensor:
    tensor, scale = stored[name].float(), stored.get(name + INT8_SCALE)
    return tensor if scale is None else tensor * scale[:, None]


def torch_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:n`` -> the device. Raises ValueError if it is unknown or missing."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdigit()):
        raise ValueError(f"Unknown device '{name}': choose auto, cpu, cuda or cuda:n.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"There is no device '{name}': PyTorch finds {torch.cuda.device_count()} GPUs. Use cpu or auto."
        )
    return torch.device("cpu") if kind == "cpu" else torch.device("cuda", int(number or 0))


class _Served(torch.nn.Module):
    """Both networks: padded sparse cells of one gene set -> embedding, h_C and codes."""

    def __init__(self, embedding: EmbeddingNetwork, encoder: InferenceNetwork) -> None:
        super().__init__()
        self.embedding, self.encoder = embedding, encoder
        self.num_components = embedding.basis.components.shape[1]

    def forward(
        self, gene_index: Tensor, value: Tensor, center: Tensor, solve: Tensor, log_measured: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        embedding, log_length = self.embedding(gene_index, value, center, solve, log_measured)
        h, codes = self.encoder(embedding[:, : self.num_components], log_length)
        return embedding, h, codes


def trace(bundle: Bundle) -> torch.jit.ScriptModule:
    """TorchScript of everything but the decoder, for any batch size and padded length."""
    config = network_config(bundle)
    served = _Served(load_embedding(bundle), load_network(bundle))
    return torch.jit.trace(served, _tensors(example(256, 2, config.components)), check_trace=False)


def _tensors(batch: Padded) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in batch.feed().values())


class TorchScriptSession(BucketedSession):
    """Implements `Session` with PyTorch. Raises BundleError, or ValueError for an unknown device."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        self._device = torch_device(device)
        super().__init__(bundle, runtime="torchscript", device=str(self._device), threads=threads)
        config = self._config
        inputs = _tensors(example(256, 2, config.components))
        self._embedding = torch.jit.trace(load_embedding(bundle), inputs, check_trace=False).to(self._device)
        tokens = torch.zeros(2, config.components), torch.zeros(2, 1)
        self._encoder = torch.jit.trace(load_network(bundle), tokens, check_trace=False).to(self._device)
        self._decoder: TokenDecoder | None = None

    @torch.inference_mode()
    def _embed_padded(self, batch: Padded) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        embedding, log_length = self._embedding(*(tensor.to(self._device) for tensor in _tensors(batch)))
        return embedding.cpu().numpy(), log_length.cpu().numpy()

    @torch.inference_mode()
    def _encode_padded(
        self, f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        h, codes = self._encoder(*(torch.from_numpy(array).to(self._device) for array in (f, log_length)))
        return h.cpu().numpy(), codes.cpu().numpy()

    @torch.inference_mode()
    def _decode_padded(
        self, codes: NDArray[np.int32], f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if self._decoder is None:
            self._decoder = load_decoder(self._bundle).to(self._device)
        inputs = (torch.from_numpy(array).to(self._device) for array in (codes, f, log_length))
        return self._decoder(*inputs).cpu().numpy()
