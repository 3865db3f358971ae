"""The embeddings of a bundle, and of the same network untrained (paper Table 6)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.embedding import SparseCells, pool
from scpalm.model.network.folded import InferenceNetwork, fold
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.sessions.base import network_config
from scpalm.model.sessions.session import Encoded
from scpalm.model.sessions.torchscript import load_network
from scpalm.training.evaluation.common.source import MODEL_METHODS, trained_on

BATCH = 256


class BundleEmbeddings:
    """An ``EmbeddingSource``: ``h_C``, mean and concatenation of the pathway tokens, read-out f, untrained h_C."""

    methods = MODEL_METHODS

    def __init__(self, bundle: Bundle, *, seed: int = 0) -> None:
        self._vocabulary = bundle.vocabulary
        self._session = load(bundle, "cpu").session
        self._network = load_network(bundle)
        self._config = network_config(bundle)
        self._seed = seed
        self._trained_on = trained_on(bundle)
        self._last: tuple[CellMatrix, Encoded] | None = None

    def zero_shot(self, method: str, dataset: str) -> bool:
        """False for the training data in the manifest, and for the untrained network.

        The untrained network takes its statistics and codes from the cells it is scored on.
        """
        return method != "untrained" and dataset not in self._trained_on

    @torch.no_grad()
    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float32]:
        """``[cells, width]`` float32: D for h_C, mean_tokens and untrained, N for readout, N D for concat_tokens."""
        if method == "untrained":
            batches = sparse_batches(matrix, self._vocabulary)
            network = self._untrained(batches)
            return _stack([network.cell_encoder.embed(_tokens(network, batch)) for batch in batches])
        if method == "readout":
            return _stack([_read_out(self._network, batch) for batch in sparse_batches(matrix, self._vocabulary)])
        encoded = self._encoded(matrix)
        if method == "h_C":
            return encoded.embedding
        tokens = self._network.code_tokens.numpy()[encoded.codes]
        return tokens.mean(axis=1) if method == "mean_tokens" else tokens.reshape(len(tokens), -1)

    def _encoded(self, matrix: CellMatrix) -> Encoded:
        """What the service computes of these cells."""
        if self._last is None or self._last[0] is not matrix:
            self._last = (matrix, self._session.encode(prepare(matrix, self._vocabulary).rows))
        return self._last[1]

    @cached_property
    def _random_stages(self) -> tuple[PathwayAutoencoder, CellEncoder]:
        torch.manual_seed(self._seed)
        return PathwayAutoencoder(self._config).eval(), CellEncoder(self._config).eval()

    @torch.no_grad()
    def _untrained(self, batches: list[SparseCells]) -> InferenceNetwork:
        # Its statistics come from the cells and its codes from k-means; without them it would be too weak a baseline.
        stage1, cells = self._random_stages
        f = torch.cat([stage1.embedding(batch) for batch in batches])
        stage1.standardise.running_mean = f.mean(0)
        stage1.standardise.running_var = f.var(0)
        encoded = torch.cat([stage1.encode_read_out(stage1.read_out(batch)) for batch in batches[:4]])
        stage1.quantizer.initialise(encoded, torch.Generator().manual_seed(self._seed))
        return fold(stage1, cells)


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


@torch.no_grad()
def _read_out(network: InferenceNetwork, batch: SparseCells) -> Tensor:
    return pool(batch, network.slope, network.offset, network.pooling)


@torch.no_grad()
def _tokens(network: InferenceNetwork, batch: SparseCells) -> Tensor:
    return network.code_tokens[network.nearest(_read_out(network, batch))]


def _stack(parts: list[Tensor]) -> NDArray[np.float32]:
    return torch.cat(parts).detach().numpy()
