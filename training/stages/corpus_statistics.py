"""Statistics of a corpus: gene means, singular vectors, spectral scores, and yardsticks for reconstruction errors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn import functional as F

from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler


def corpus_matrix(corpus: Corpus, rows: NDArray[np.int64]) -> sparse.csr_matrix:
    """``[rows, G]`` log1p CP10K."""
    # Rows may repeat; each cell is read once.
    different, place = np.unique(rows, return_inverse=True)
    cells = [corpus.cell(int(row)) for row in different]
    indptr = np.concatenate([[0], np.cumsum([len(genes) for genes, _ in cells])])
    table = sparse.csr_matrix(
        (np.concatenate([v for _, v in cells]), np.concatenate([g for g, _ in cells]), indptr),
        shape=(len(different), corpus.num_genes),
    )
    return table[place]


def gene_means(corpus: Corpus, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """``[G]`` mean over the cells whose file measured the gene; 0 if none did."""
    total = np.asarray(corpus_matrix(corpus, rows).sum(axis=0)).ravel()
    files = np.bincount(corpus.obs["file"].to_numpy()[rows], minlength=len(corpus.measured)).astype(np.float64)
    count = files @ corpus.measured
    return (total / np.maximum(count, 1)).astype(np.float32)


def singular_vectors(corpus: Corpus, sampler: Sampler, count: int, *, cells: int = 12288) -> NDArray[np.float32]:
    """``[G, count]`` top right singular vectors of tissue-balanced cells, each with a positive sum."""
    rows = sampler.draw(step=2**31, size=cells)
    start = np.random.default_rng(sampler.seed).standard_normal(min(cells, corpus.num_genes))
    vectors = svds(corpus_matrix(corpus, rows).astype(np.float32), k=count, v0=start.astype(np.float32))[2][::-1].T
    return np.ascontiguousarray(vectors * np.sign(vectors.sum(axis=0)), dtype=np.float32)


class SpectralScores:
    """A cell's projections on the corpus' top right singular vectors, each standardised over the corpus.

    The MSE of log1p values mostly reflects sequencing depth. These scores weigh all directions of variation equally, so
    that what separates cell types counts as much as depth.
    """

    def __init__(self, corpus: Corpus, sampler: Sampler, vectors: NDArray[np.float32], *, cells: int = 8192) -> None:
        sample = corpus_matrix(corpus, sampler.draw(step=2**31 + 1, size=cells)) @ vectors
        self.vectors = torch.from_numpy(vectors)
        self.mean = torch.from_numpy(sample.mean(axis=0).astype(np.float32))
        spread = sample.std(axis=0)
        # Mean variance 1 over the scores, so that an error reads as an unexplained share.
        self.std = torch.from_numpy(np.sqrt(np.maximum(spread * spread.mean(), 1e-12)).astype(np.float32))

    def to(self, device: torch.device) -> SpectralScores:
        self.vectors, self.mean, self.std = (t.to(device) for t in (self.vectors, self.mean, self.std))
        return self

    def of(self, cells: SparseCells) -> Tensor:
        """``[B, M]``, mean 0 and mean variance 1 over the corpus."""
        total = F.embedding_bag(
            cells.gene_index, self.vectors, cells.offsets, mode="sum", per_sample_weights=cells.value
        )
        return (total - self.mean) / self.std


class Yardsticks:
    """Held-out errors of the gene means and of PCA with as many components as the model has tokens (mean squared
    error over measured genes of log1p CP10K, both fitted to the training cells)."""

    def __init__(self, corpus: Corpus, means: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
        rows = corpus.held_out_rows
        self.gene_mean = self.pca = float("nan")
        if not len(rows):
            return
        x = corpus_matrix(corpus, rows).toarray()
        measured = corpus.measured[corpus.obs["file"].to_numpy()[rows]]
        residual = np.where(measured, x - means, 0.0)
        self.gene_mean = float((residual**2).sum() / measured.sum())
        basis = np.linalg.qr(vectors)[0]
        left = np.where(measured, residual - (residual @ basis) @ basis.T, 0.0)
        self.pca = float((left**2).sum() / measured.sum())


def masked_sum(values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``sum(m (o - x)^2)``; values, target ``[B, G]``, mask ``[B, G]`` bool."""
    return ((values - target).square() * mask.to(values.dtype)).sum()


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(array)
