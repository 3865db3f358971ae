"""The models of `bench_peers.py`: PCA, networks of published sizes with random weights, and scPaLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.network.transformer import Transformer
from scpalm.model.sessions.onnx import OnnxSession
from scpalm.model.sessions.session import Session
from scpalm.model.sessions.torchscript import TorchScriptSession
from tests.gpu.kit.flop import count_flop, embedding_flop, token_flop
from tests.gpu.kit.random_bundle import write_random_bundle

NUM_GENES = 2000
Embed = Callable[[Rows], object]


@dataclass(frozen=True)
class Peer:
    """One line of the table.

    Attributes:
        name: of the model. tokens: of a cell, "-" without a sequence.
        open: number of threads -> a function that embeds rows.
        flop: of a cell. batch: cells per call.
    """

    name: str
    tokens: str
    open: Callable[[int], Embed]
    flop: float
    batch: int


class EncoderOfScvi(nn.Module):
    """The shape of scVI's encoder: genes -> 128 (batch norm, ReLU) -> mean and variance of 10 dimensions."""

    def __init__(self, num_genes: int = NUM_GENES, hidden: int = 128, latent: int = 10) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(num_genes, hidden), nn.BatchNorm1d(hidden, eps=1e-3), nn.ReLU())
        self.mean, self.variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(torch.log1p(counts))
        return self.mean(hidden), torch.exp(self.variance(hidden))


@dataclass(frozen=True)
class Sizes:
    """Layers, width, heads, width of the feed-forward layer, tokens, and number of known genes."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    tokens: int
    genes: int


class GeneTransformer(nn.Module):
    """A transformer with one token per gene, as those of scGPT and Geneformer, and the mean of its tokens."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.genes, self.value = nn.Embedding(sizes.genes, sizes.width), nn.Linear(1, sizes.width)
        self.transformer = Transformer(sizes.width, sizes.layers, sizes.heads, "post")
        for layer in self.transformer.layers:
            layer.feed_forward = nn.Sequential(
                nn.Linear(sizes.width, sizes.feed_forward), nn.ReLU(), nn.Linear(sizes.feed_forward, sizes.width)
            )

    def forward(self, genes: Tensor, values: Tensor) -> Tensor:
        """``[B, T]`` twice -> ``[B, D]``."""
        return self.transformer(self.genes(genes) + self.value(values[:, :, None])).mean(dim=1)


def variable_genes(rows: Rows, num_genes: int) -> NDArray[np.int64]:
    """Positions of the genes whose values vary most between the rows."""
    sums = np.bincount(rows.gene_index, rows.value, num_genes)
    squares = np.bincount(rows.gene_index, rows.value.astype(np.float64) ** 2, num_genes)
    variance = squares / len(rows) - (sums / len(rows)) ** 2
    return np.sort(np.argsort(-variance)[:NUM_GENES])


def dense(rows: Rows, position: NDArray[np.int64]) -> NDArray[np.float32]:
    """``[B, NUM_GENES]`` values; ``position [G]``: the column of each gene, -1 for none."""
    out = np.zeros((len(rows), NUM_GENES), dtype=np.float32)
    column = position[rows.gene_index]
    cell = np.repeat(np.arange(len(rows)), rows.lengths())
    out[cell[column >= 0], column[column >= 0]] = rows.value[column >= 0]
    return out


def small_models(rows: Rows, num_genes: int) -> Iterator[Peer]:
    """PCA and the encoder of scVI, on the same genes."""
    position = np.full(num_genes, -1)
    position[variable_genes(rows, num_genes)] = np.arange(NUM_GENES)
    pca = PCA(50, random_state=0).fit(dense(rows, position))

    def open_pca(threads: int) -> Embed:
        def embed(part: Rows) -> object:
            with threadpool_limits(threads):
                return pca.transform(dense(part, position))

        return embed

    yield Peer("PCA, 50 components", "-", open_pca, 2 * 50 * NUM_GENES, len(rows))
    encoder = EncoderOfScvi().eval()

    def open_scvi(threads: int) -> Embed:
        torch.set_num_threads(threads)
        return torch.inference_mode()(lambda part: encoder(torch.from_numpy(dense(part, position))))

    yield Peer("shape of scVI's encoder", "-", open_scvi, count_flop(encoder, torch.zeros(1, NUM_GENES)), len(rows))


def transformers() -> Iterator[Peer]:
    """Transformers with one token per gene."""
    for name, sizes in (
        ("shape of scGPT", Sizes(12, 512, 8, 512, 1200, 60697)),
        ("shape of Geneformer V1", Sizes(6, 256, 4, 512, 2048, 25426)),
        ("shape of Geneformer 12L-95M", Sizes(12, 512, 8, 1024, 4096, 20275)),
    ):
        yield transformer(name, sizes)


def transformer(name: str, sizes: Sizes) -> Peer:
    """One of them. Cells are cut or repeated to its number of tokens."""
    network = GeneTransformer(sizes).eval()
    example = torch.zeros(1, sizes.tokens, dtype=torch.int64), torch.zeros(1, sizes.tokens)

    def open_network(threads: int) -> Embed:
        torch.set_num_threads(threads)

        @torch.inference_mode()
        def embed(part: Rows) -> object:
            first = part.indptr[:-1, None] + np.arange(sizes.tokens) % np.maximum(part.lengths(), 1)[:, None]
            genes = torch.from_numpy(part.gene_index[first].astype(np.int64) % sizes.genes)
            return network(genes, torch.from_numpy(part.value[first]))

        return embed

    return Peer(name, f"{sizes.tokens:,}", open_network, count_flop(network, *example), 2)


def scpalm(rows: Rows, folder: Path) -> Iterator[Peer]:
    """The packaged model in its served form, and `base` with random weights."""
    mini = Bundle.load()
    base = write_random_bundle(folder / "base", "base", mini, graphs=False)

    def onnx(*, tokens: bool) -> Callable[[int], Embed]:
        return lambda threads: _encode(OnnxSession(mini, device="cpu", threads=threads), tokens=tokens)

    def torch_base(threads: int) -> Embed:
        torch.set_num_threads(1)  # the session has a thread for each batch
        return _encode(TorchScriptSession(base, device="cpu", threads=threads), tokens=True)

    alone = embedding_flop(mini, rows)
    yield Peer("scPaLM mini, embedding alone", "-", onnx(tokens=False), alone, len(rows))
    yield Peer("scPaLM mini, h_C and codes too", "2 x 96", onnx(tokens=True), alone + token_flop(mini), 64)
    flop = embedding_flop(base, rows) + token_flop(base)
    yield Peer("scPaLM base, h_C and codes too", "2 x 256", torch_base, flop, 32)


def _encode(session: Session, *, tokens: bool) -> Embed:
    return lambda rows: session.encode(rows, tokens=tokens)
