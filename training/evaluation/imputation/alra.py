"""Adaptively thresholded low-rank approximation (Linderman et al. 2022, "Zero-preserving imputation of single-cell
RNA-seq data"), written from the paper's description."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.imputation.imputers import Values

NUM_SINGULAR = 100
NOISE_START = 80
# A gap between singular values counts as signal when it exceeds the noise's mean gap by so many sds.
GAP_SDS = 6.0
QUANTILE = 0.001
POWER_ITERATIONS = 2


class Alra:
    """``alra``, an Imputer: biological zeros stay zero, the others get their low-rank value."""

    methods = ("alra",)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K; observed values are kept where the low-rank value is zero."""
        return complete(log_normalized(matrix), seed)


def complete(log: sparse.csr_matrix, seed: int) -> Values:
    """``[cells, genes]``: low rank, thresholded by each gene's most negative value, rescaled, observed values kept."""
    num = min(NUM_SINGULAR, *(side - 1 for side in log.shape))
    left, singular, right = randomized_svd(
        log.astype(np.float32), n_components=num, n_iter=POWER_ITERATIONS, random_state=seed
    )
    rank = choose_rank(singular)
    values = ((left[:, :rank] * singular[:rank]) @ right[:rank]).astype(np.float32)
    # Errors are symmetric around 0, so values up to the size of the most negative one are noise.
    cut = np.abs(np.quantile(values, QUANTILE, axis=0))
    values[values <= cut] = 0.0
    _rescale(values, log)
    observed = log.tocoo()
    lost = values[observed.row, observed.col] == 0
    values[observed.row[lost], observed.col[lost]] = observed.data[lost]
    return values


def choose_rank(singular: NDArray[np.floating]) -> int:
    """The last gap between descending singular values that exceeds the noise; at least 1."""
    gaps = singular[:-1] - singular[1:]
    noise = gaps[min(NOISE_START - 1, len(gaps) * 4 // 5) :]
    if len(noise) < 2:
        return len(singular)
    spread = float(noise.std(ddof=1)) or np.finfo(np.float64).tiny
    outstanding = np.flatnonzero((gaps - noise.mean()) / spread > GAP_SDS)
    return int(outstanding[-1]) + 1 if len(outstanding) else 1


def _rescale(values: Values, log: sparse.csr_matrix) -> None:
    """Give the positive values of each gene the mean and sd of its observed positive values, in place."""
    count = np.asarray(log.getnnz(axis=0), dtype=np.float64)
    mean, spread = _moments(
        np.asarray(log.sum(axis=0)).ravel(), np.asarray(log.multiply(log).sum(axis=0)).ravel(), count
    )
    positive = values > 0
    own_count = positive.sum(axis=0).astype(np.float64)
    own_mean, own_spread = _moments(
        values.sum(axis=0, dtype=np.float64), np.einsum("ij,ij->j", values, values, dtype=np.float64), own_count
    )
    fit = (spread > 0) & (own_spread > 0)
    slope = np.where(fit, spread / np.where(fit, own_spread, 1.0), 1.0)
    shift = np.where(fit, mean - own_mean * slope, 0.0)
    values *= slope.astype(np.float32)
    values += np.where(positive, shift.astype(np.float32), np.float32(0))
    np.maximum(values, 0.0, out=values)


def _moments(
    total: NDArray[np.float64], square: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = total / np.maximum(count, 1)
    variance = (square - count * mean**2) / np.maximum(count - 1, 1)
    return mean, np.sqrt(np.maximum(variance, 0.0))
