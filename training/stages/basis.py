"""Fit the components of a corpus that the read-out f projects cells on.

A weighted principal component analysis of ``log1p(value_scale * expm1(x))``, with each gene divided by a power of its
sd and centred within the files that measured it. Entries of genes that a file did not measure count as the mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import LinearReadOut
from scpalm.model.read_out.basis import Basis
from scpalm.training.corpus.matrix import corpus_matrix
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import OptimizerConfig

# Genes with less spread than this quantile of all genes are weighted like those at the quantile.
_LOWEST_SD = 0.2


@dataclass(frozen=True)
class BasisOptions:
    """Choices of the fit, measured in training/LOG.md.

    Attributes:
        gene_power: genes are divided by ``sd ** gene_power``.
        exponent: a component with singular value s is scaled by ``(s / s_1) ** exponent``.
        oversample, iterations: of the randomised decomposition.
        max_cells: a larger corpus is represented by this many cells.
    """

    gene_power: float = 0.25
    exponent: float = 0.75
    oversample: int = 48
    iterations: int = 4
    max_cells: int = 65536


def fit_basis(
    corpus: Corpus,
    network: NetworkConfig,
    *,
    seed: int,
    simulated_share: float,
    options: BasisOptions = BasisOptions(),
    device: torch.device | None = None,
) -> Basis:
    """Components of the training cells; a data set of n cells weighs ``sqrt(n)``.

    Takes some two minutes per 50,000 cells on a CPU. ``device``: of the decomposition, default: the CPU.
    """
    sampler = Sampler(corpus, power=0.5, seed=seed, balance_by="dataset", simulated_share=simulated_share)
    rows, weight = sampler.rows, sampler.probability
    if len(rows) > options.max_cells:
        rows = sampler.draw(2**31 + 4, options.max_cells)
        weight = np.full(len(rows), 1 / len(rows))
    y = corpus_matrix(corpus, rows)
    y.data = np.log1p(np.expm1(y.data) * np.float32(network.value_scale))
    file = corpus.obs["file"].to_numpy()[rows]
    mean, sd = _moments(y, corpus.measured, file, weight)
    spread = sd[sd > 0]
    floor = float(np.quantile(spread, _LOWEST_SD)) if len(spread) else 1.0
    gene_weight = (np.maximum(sd, floor) ** -options.gene_power).astype(np.float32)
    y = (y @ sparse.diags(gene_weight)).tocsr().astype(np.float32)
    centred = _Centred(y, corpus.measured * (mean * gene_weight), file, weight).to(device or torch.device("cpu"))
    width = network.components
    vectors, values = centred.components(width, options, seed)
    if len(values) < width:  # a tiny corpus
        vectors = np.pad(vectors, ((0, 0), (0, width - len(values))))
        values = np.pad(values, (0, width - len(values)))
    scaled = vectors * (np.maximum(values, 1e-6 * values[0]) / values[0]) ** options.exponent
    return Basis.of(scaled, gene_weight, mean, ridge=network.ridge, value_scale=network.value_scale)


def read_out_of(stage1: PathwayAutoencoder, corpus: Corpus, config: OptimizerConfig) -> LinearReadOut:
    """The read-out of a stage 1, or a new one for an ablation with another read-out, which predicts the same scores."""
    if isinstance(stage1.embedding, LinearReadOut):
        return stage1.embedding
    read_out = LinearReadOut(stage1.config)
    read_out.load(fit_basis(corpus, stage1.config, seed=config.seed, simulated_share=config.simulated_share))
    return read_out


def _moments(
    y: sparse.csr_matrix, measured: NDArray[np.bool_], file: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``[G]`` weighted mean and sd of each gene over the cells whose file measured it; 0 if none did."""
    total = np.bincount(file, weights=weight, minlength=len(measured)) @ measured
    total = np.where(total > 0, total, np.inf)
    first = np.asarray((sparse.csr_matrix(weight[None]) @ y).todense()).ravel() / total
    second = np.asarray((sparse.csr_matrix(weight[None]) @ y.multiply(y)).todense()).ravel() / total
    return first.astype(np.float32), np.sqrt(np.maximum(second - first**2, 0)).astype(np.float32)


class _Centred:
    """The matrix ``sqrt(weight) (y - mean of the measured genes)``, never dense."""

    def __init__(
        self,
        y: sparse.csr_matrix,
        means: NDArray[np.float32],
        file: NDArray[np.int64],
        weight: NDArray[np.float64],
    ) -> None:
        root = np.sqrt(weight * len(weight)).astype(np.float32)
        weighted = (sparse.diags(root) @ y).tocsr().astype(np.float32)
        self._y, self._transposed = _csr(weighted), _csr(weighted.T.tocsr())
        self._means = torch.from_numpy(np.ascontiguousarray(means, dtype=np.float32))  # [files, G]
        self._file = torch.from_numpy(file.astype(np.int64))
        self._root = torch.from_numpy(root)

    def to(self, device: torch.device) -> _Centred:
        """Move the matrix to a device."""
        self._y, self._transposed = self._y.to(device), self._transposed.to(device)
        self._means, self._file, self._root = self._means.to(device), self._file.to(device), self._root.to(device)
        return self

    def times(self, x: Tensor) -> Tensor:
        """``[G, k] -> [cells, k]``."""
        return self._y @ x - self._root[:, None] * (self._means @ x)[self._file]

    def transposed_times(self, x: Tensor) -> Tensor:
        """``[cells, k] -> [G, k]``."""
        sums = x.new_zeros(len(self._means), x.shape[1]).index_add_(0, self._file, x * self._root[:, None])
        return self._transposed @ x - self._means.T @ sums

    def components(
        self, count: int, options: BasisOptions, seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``[G, k]`` right singular vectors and ``[k]`` singular values, k <= count; randomised and seeded."""
        cells, genes = self._y.shape
        most = min(cells, genes)
        width = min(count + options.oversample, most)
        x = torch.randn(genes, width, generator=torch.Generator().manual_seed(seed)).to(self._y.device)
        for _ in range(options.iterations):
            x = torch.linalg.qr(self.transposed_times(torch.linalg.qr(self.times(x))[0]))[0]
        projected = self.times(x).double()
        squares, rotation = torch.linalg.eigh(projected.T @ projected)
        kept = min(count, most)
        values = squares.flip(0)[:kept].clamp(min=0).sqrt().cpu().numpy()
        vectors = (x.double() @ rotation.flip(1)[:, :kept]).cpu().numpy()
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
        return vectors * signs, values


def _csr(matrix: sparse.csr_matrix) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch calls its sparse tensors a beta
        rows, columns = (torch.from_numpy(a.astype(np.int64)) for a in (matrix.indptr, matrix.indices))
        return torch.sparse_csr_tensor(rows, columns, torch.from_numpy(matrix.data), size=matrix.shape)
