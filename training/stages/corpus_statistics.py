"""Statistics of a corpus: gene means, singular vectors, scores to predict, and yardsticks for reconstruction errors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import Tensor

from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.read_out import LinearReadOut
from scpalm.training.corpus.matrix import corpus_matrix
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler


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


class Scores:
    """What both stages predict in addition to the genes: the first N - 1 coordinates of a cell's f.

    The MSE of log1p values mostly reflects sequencing depth. These scores have no depth in them, so what separates cell
    types counts as much as the genes' values.
    """

    def __init__(self, corpus: Corpus, sampler: Sampler, read_out: LinearReadOut, *, cells: int = 8192) -> None:
        self._read_out = read_out
        self.count = read_out.num_tokens - 1
        rows = sampler.draw(step=2**31 + 1, size=cells)
        parts = [self._of(corpus.batch(rows[start : start + 256])) for start in range(0, cells, 256)]
        sample = torch.cat(parts)
        self.mean = sample.mean(0)
        # Mean variance 1 over the scores, so that an error reads as an unexplained share.
        self.sd = sample.var(0).mean().sqrt().clamp(min=1e-6)

    def _of(self, cells: SparseCells) -> Tensor:
        return self._read_out(cells)[:, : self.count]

    def to(self, device: torch.device) -> Scores:
        self.mean, self.sd = self.mean.to(device), self.sd.to(device)
        self._read_out.to(device)
        return self

    def of(self, cells: SparseCells) -> Tensor:
        """``[B, N - 1]``, mean 0 and mean variance 1 over the corpus."""
        return (self._of(cells) - self.mean) / self.sd


class Yardsticks:
    """Held-out errors of the gene means and of PCA with as many components as the model has tokens (mean squared
    error over measured genes of log1p CP10K, both fitted to the training cells).

    Without ``vectors [G, components]``, the error of PCA is NaN.
    """

    def __init__(self, corpus: Corpus, means: NDArray[np.float32], vectors: NDArray[np.float32] | None) -> None:
        rows = corpus.held_out_rows
        self.gene_mean = self.pca = float("nan")
        if not len(rows):
            return
        x = corpus_matrix(corpus, rows).toarray()
        measured = corpus.measured[corpus.obs["file"].to_numpy()[rows]]
        residual = np.where(measured, x - means, 0.0)
        self.gene_mean = float((residual**2).sum() / measured.sum())
        if vectors is None:
            return
        basis = np.linalg.qr(vectors)[0]
        left = np.where(measured, residual - (residual @ basis) @ basis.T, 0.0)
        self.pca = float((left**2).sum() / measured.sum())


def masked_sum(values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``sum(m (o - x)^2)``; values, target ``[B, G]``, mask ``[B, G]`` bool."""
    return ((values - target).square() * mask.to(values.dtype)).sum()


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(array)
