"""Principal components of cells, with reproducible signs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.decomposition import PCA

from scpalm.model.errors import InputError

# Up to here the matrix of inner products is small, and 4 times as fast as ARPACK at 256 components.
_CELLS_BY_PRODUCTS = 6000


def principal_components(log: sparse.csr_matrix, num: int, seed: int = 0) -> NDArray[np.float64]:
    """``[cells, min(num, cells - 1, genes - 1)]`` scores of log values, largest variance first.

    Centred, not scaled, exact to machine precision. Up to 6,000 cells use the inner products of cells, more use ARPACK
    with a seeded start. Genes without a count are left out.

    Raises:
        InputError: fewer than 3 cells or expressed genes.
    """
    expressed = log[:, np.asarray(log.getnnz(axis=0) > 0)]
    width = min(num, min(expressed.shape) - 1)
    if width < 2:
        raise InputError(
            "too-few-genes",
            f"The file has {expressed.shape[0]} cells and {expressed.shape[1]} genes with a count.",
            hint="Principal components need 3 of each.",
        )
    if expressed.shape[0] <= _CELLS_BY_PRODUCTS:
        scores = _from_inner_products(expressed, width)
    else:
        analysis = PCA(width, svd_solver="arpack", random_state=seed)
        scores = np.asarray(analysis.fit_transform(expressed), dtype=np.float64)
    return _with_fixed_signs(scores)


def _from_inner_products(log: sparse.csr_matrix, width: int) -> NDArray[np.float64]:
    cells = log.shape[0]
    mean = np.asarray(log.mean(axis=0)).ravel()
    products = np.asarray((log @ log.T).todense())
    # <a - m, b - m>, without a dense matrix of cells x genes.
    with_mean = log @ mean
    products += mean @ mean - with_mean[:, None] - with_mean[None, :]
    values, vectors = linalg.eigh(products, subset_by_index=[cells - width, cells - 1], overwrite_a=True)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1], dtype=np.float64)


def components(values: sparse.csr_matrix | NDArray[np.float32], num: int, seed: int = 0) -> NDArray[np.float64]:
    """``[cells, num]`` scores of log or imputed values, largest variance first.

    As ``principal_components``, for dense values too. All genes take part, and more than 6,000 cells use a randomised
    decomposition with a seed: imputed values are dense, and ARPACK would take minutes.

    Raises:
        InputError: fewer than 3 cells or genes.
    """
    cells, genes = values.shape
    width = min(num, cells - 1, genes - 1)
    if width < 2:
        raise InputError(
            "too-few-genes", f"{cells} cells and {genes} genes are left.", hint="Imputation needs 3 of each at least."
        )
    if cells > _CELLS_BY_PRODUCTS:
        dense = as_dense(values)
        return np.asarray(PCA(width, svd_solver="randomized", random_state=seed).fit_transform(dense), dtype=np.float64)
    wide = as_dense(values @ values.T).astype(np.float64)
    wide = wide - wide.mean(axis=0)[None] - wide.mean(axis=1)[:, None] + wide.mean()
    eigenvalues, vectors = np.linalg.eigh(wide)
    scores = (vectors[:, -width:] * np.sqrt(np.maximum(eigenvalues[-width:], 0.0)))[:, ::-1]
    return np.asarray(_with_fixed_signs(scores), dtype=np.float64)


def _with_fixed_signs(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``scores [cells, num]`` with the entry of largest magnitude in each component positive."""
    largest = np.abs(scores).argmax(axis=0)
    return scores * np.where(scores[largest, np.arange(scores.shape[1])] < 0, -1.0, 1.0)


def as_dense(values: sparse.csr_matrix | NDArray[np.floating]) -> NDArray[np.floating]:
    """The same values as an array."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.todense())
