"""The gene head of stage 1 without torch: decoded tokens -> values of chosen genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.config import NetworkConfig


@dataclass(frozen=True, eq=False)
class Columns:
    """Genes to read out, by the tokens that own them.

    Attributes:
        tokens: ``[T]`` the tokens involved. weight: ``[T, S, D]`` of all genes of each. position: ``[genes]`` of a gene
            among the ``T * S`` values. bias: ``[genes]``.
    """

    tokens: NDArray[np.int64]
    weight: NDArray[np.float32]
    position: NDArray[np.int64]
    bias: NDArray[np.float32]

    def read(self, decoded: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """``[B, N, D]`` decoded tokens -> the first ``len(out)`` cells' values ``[.., genes]``, written to ``out``."""
        # All genes of a token at once, also where few are asked for: a gene does not depend on the others. Cells are
        # the columns of the products: as rows, BLAS would round each by its place among them.
        values = np.matmul(self.weight, decoded.transpose(1, 2, 0)[self.tokens])  # [T, S, B]
        flat = values.reshape(-1, len(decoded))
        np.add(flat[self.position].T[: len(out)], self.bias, out=out)


class GeneReadOut:
    """``o_g = w_g . h_token(g) + b_g``; see `scpalm.model.network.pathways.GeneHead`."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], num_tokens: int) -> None:
        # [N, S, D], or [1, S, D] where tokens share one
        self._weight = np.ascontiguousarray(weight.transpose(0, 2, 1))
        self._bias = bias  # [G]
        self._genes_per_token = weight.shape[2]
        self._num_tokens = num_tokens

    @classmethod
    def load(cls, bundle: Bundle, config: NetworkConfig) -> GeneReadOut:
        """Raises BundleError when the weights are not there or do not fit."""
        path = bundle.file("weights.safetensors")
        try:
            with safe_open(path, framework="numpy") as tensors:
                weight, bias = (tensors.get_tensor(f"head.{name}").astype(np.float32) for name in ("weight", "bias"))
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{path} holds no gene head ({error}). Export the bundle again.") from error
        rows = 1 if config.head == "shared" else config.num_tokens
        if weight.shape != (rows, config.width, config.genes_per_token) or bias.shape != (config.num_genes,):
            raise BundleError(f"{path}: head.weight has shape {weight.shape}, which does not fit the network.")
        return cls(weight, bias, config.num_tokens)

    def columns(self, genes: NDArray[np.int64]) -> Columns:
        """Choose genes by their vocabulary positions."""
        token, within = np.divmod(genes, self._genes_per_token)
        tokens, row = np.unique(token, return_inverse=True)
        weight = self._weight if len(tokens) == len(self._weight) else self._weight[tokens % len(self._weight)]
        return Columns(tokens, weight, row * self._genes_per_token + within, self._bias[genes])
