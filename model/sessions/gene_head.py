"""The gene head of stage 1 in NumPy: decoded tokens -> values of chosen genes. Letters: B cells, N tokens, D width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.config import NetworkConfig


@dataclass(frozen=True, eq=False)
class GeneColumns:
    """Genes to read out, grouped by the T tokens that hold them.

    Attributes:
        tokens: ``[T]`` the tokens.
        weight: ``[T, S, D]`` weights of all S genes of each token.
        position: ``[genes]`` position of each gene among the ``T * S`` values.
        bias: ``[genes]`` bias of each gene.
    """

    tokens: NDArray[np.int64]
    weight: NDArray[np.float32]
    position: NDArray[np.int64]
    bias: NDArray[np.float32]

    def read(self, decoded: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Decoded tokens ``[B, N, D]`` -> values of the first ``len(out)`` cells ``[cells, genes]``, into ``out``."""
        # Always compute all genes of a token, so that a gene's value does not depend on which others are requested.
        # Cells are columns of the products: BLAS may round a row differently depending on its position.
        values = np.matmul(self.weight, decoded.transpose(1, 2, 0)[self.tokens])  # [T, S, D] @ [T, D, B] -> [T, S, B]
        flat = values.reshape(-1, len(decoded))  # [T * S, B]
        np.add(flat[self.position].T[: len(out)], self.bias, out=out)


class GeneReadOut:
    """``o_g = w_g . h_token(g) + b_g``; see `scpalm.model.network.pathways.GeneHead`.

    Attributes:
        weight: ``[N, S, D]`` float32, or ``[1, S, D]`` for a head shared by all tokens.
        bias: ``[G]`` float32.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], num_tokens: int) -> None:
        self.weight = np.ascontiguousarray(weight.transpose(0, 2, 1))
        self.bias = bias
        self._genes_per_token = weight.shape[2]
        self._num_tokens = num_tokens

    @classmethod
    def load(cls, bundle: Bundle, config: NetworkConfig) -> GeneReadOut:
        """Read the weights from a bundle. Raises BundleError if they are missing or do not fit the network."""
        path = bundle.file("weights.safetensors")
        try:
            with safe_open(path, framework="numpy") as tensors:
                weight, bias = (tensors.get_tensor(f"head.{name}").astype(np.float32) for name in ("weight", "bias"))
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{path} has no gene head ({error}). Export the bundle again.") from error
        rows = 1 if config.head == "shared" else config.num_tokens
        if weight.shape != (rows, config.width, config.genes_per_token) or bias.shape != (config.num_genes,):
            raise BundleError(
                f"{path}: head.weight has shape {weight.shape}, which does not fit the network. "
                "Export the bundle again."
            )
        return cls(weight, bias, config.num_tokens)

    def columns(self, genes: NDArray[np.int64]) -> GeneColumns:
        """Select genes by their vocabulary positions."""
        token, within = np.divmod(genes, self._genes_per_token)  # token i holds genes [S i, S (i + 1))
        tokens, row = np.unique(token, return_inverse=True)
        weight = self.weight if len(tokens) == len(self.weight) else self.weight[tokens % len(self.weight)]
        return GeneColumns(tokens, weight, row * self._genes_per_token + within, self.bias[genes])
