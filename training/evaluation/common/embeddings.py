"""The embeddings of a bundle, and of the same network untrained (paper Table 6).

Letters: B cells, R components, H width of the view head, N tokens, D width.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.adapter.adapter import adapter_of
from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.folded import fold
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import LinearReadOut
from scpalm.model.sessions.base import network_config, read_basis
from scpalm.model.sessions.session import Encoded
from scpalm.model.sessions.torchscript import load_network
from scpalm.training.evaluation.common.source import MODEL_METHODS, trained_on

BATCH = 256
# Methods for which the encoders need not run.
_WITHOUT_TOKENS = ("embedding", "basis")


class BundleEmbeddings:
    """An ``EmbeddingSource`` of the parts of a bundle's output.

    Methods:
        embedding: what the service returns, f and the output of the view head ``[B, R + H]``; of an adapted bundle,
            the adapted embedding.
        basis: f alone ``[B, R]``, the linear floor; each cell has length 1.
        h_C: the cell token ``[B, D]``.
        mean_tokens, concat_tokens: the pathway tokens, averaged ``[B, D]`` or concatenated ``[B, N D]``.
        readout: the standardised inputs of the tokens ``[B, N]``.
        untrained: h_C of the same network with random weights behind the trained components ``[B, D]``.
    """

    methods = MODEL_METHODS

    def __init__(self, bundle: Bundle, *, seed: int = 0) -> None:
        self._vocabulary = bundle.vocabulary
        self._session = load(bundle, "cpu").session
        self._network = load_network(bundle)
        self._config = network_config(bundle)
        self._basis = read_basis(bundle, self._config)
        self._adapter = adapter_of(bundle)
        self._seed = seed
        self._trained_on = trained_on(bundle)
        self._last: tuple[CellMatrix, Encoded] | None = None

    @property
    def num_components(self) -> int:
        """R, width of f, the first part of the embedding."""
        return self._config.components

    def zero_shot(self, method: str, dataset: str) -> bool:
        """False for the training data in the manifest, and for the untrained network.

        The untrained network takes its statistics and codes from the cells it is scored on.
        """
        return method != "untrained" and dataset not in self._trained_on

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float32]:
        """``[B, width]`` float32. Raises InputError for cells it cannot embed, ValueError for an unknown method."""
        if method == "untrained":
            return self._untrained(sparse_batches(matrix, self._vocabulary))
        if method == "readout":
            return self._inputs_of_tokens(sparse_batches(matrix, self._vocabulary))
        encoded = self._encoded(matrix, tokens=method not in _WITHOUT_TOKENS)
        if method == "embedding":
            return encoded.embedding if self._adapter is None else self._adapter.apply(encoded.rows, encoded.embedding)
        if method == "basis":
            return encoded.f
        if method == "h_C":
            return encoded.h_C
        if method not in self.methods:
            raise ValueError(f"Unknown method '{method}': choose one of {', '.join(self.methods)}.")
        tokens = self._network.code_tokens.numpy()[encoded.codes]
        return tokens.mean(axis=1) if method == "mean_tokens" else tokens.reshape(len(tokens), -1)

    def _encoded(self, matrix: CellMatrix, *, tokens: bool) -> Encoded:
        """What the service computes of these cells; the cells of the last call are kept."""
        if self._last is None or self._last[0] is not matrix or (tokens and self._last[1].tokens is None):
            self._last = (matrix, self._session.encode(prepare(matrix, self._vocabulary).rows, tokens=tokens))
        return self._last[1]

    @cached_property
    def _read_out(self) -> LinearReadOut:
        read_out = LinearReadOut(self._config)
        read_out.load(self._basis)
        return read_out

    @torch.no_grad()
    def _inputs_of_tokens(self, batches: list[SparseCells]) -> NDArray[np.float32]:
        network = self._network
        return _stack([self._read_out(batch) * network.read_scale + network.read_shift for batch in batches])

    @cached_property
    def _random_stages(self) -> tuple[PathwayAutoencoder, CellEncoder]:
        torch.manual_seed(self._seed)
        return PathwayAutoencoder(self._config).eval(), CellEncoder(self._config).eval()

    @torch.no_grad()
    def _untrained(self, batches: list[SparseCells]) -> NDArray[np.float32]:
        # Its statistics come from the cells and its codes from k-means; without them it would be too weak a baseline.
        stage1, cells = self._random_stages
        inputs = torch.cat([self._read_out(batch) for batch in batches])
        stage1.standardise.running_mean = inputs.mean(0)
        stage1.standardise.running_var = inputs.var(0)
        standardised = stage1.standardise(inputs).split(BATCH)
        encoded = torch.cat([stage1.encode_read_out(part) for part in standardised[:4]])
        stage1.quantizer.initialise(encoded, torch.Generator().manual_seed(self._seed))
        network = fold(stage1, cells)
        return _stack([cells.embed(network.code_tokens[network.nearest(part)]) for part in standardised])


def sparse_batches(matrix: CellMatrix, vocabulary: Vocabulary) -> list[SparseCells]:
    """The cells of a file as input of a network, 256 at a time. Raises InputError."""
    rows = prepare(matrix, vocabulary).rows
    measured = torch.from_numpy(rows.gene_sets[0].measured)[None]
    batches = []
    for start in range(0, len(rows), BATCH):
        part = rows.slice(start, min(start + BATCH, len(rows)))
        index, value = torch.from_numpy(part.gene_index.astype(np.int64)), torch.from_numpy(part.value)
        batches.append(SparseCells(index, value, torch.from_numpy(part.indptr[:-1].copy()), measured))
    return batches


def _stack(parts: list[Tensor]) -> NDArray[np.float32]:
    return torch.cat(parts).detach().numpy()
