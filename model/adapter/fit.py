"""Fit an adapter to a user's cells: own components, then a map that shrinks what varies within cell types.

Closed form, seeded, without torch. Letters as in `adapter`; n cells of the user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.adapter.adapter import Adapter, Floats
from scpalm.model.genes.rows import Rows
from scpalm.model.integration.kmeans import kmeans
from scpalm.model.io.labels import Categories
from scpalm.model.read_out.basis import Basis
from scpalm.model.read_out.corrections import Corrections

# Chosen on training sets that were left out whole (training/LOG.md).
NUM_OWN = 50
WIDTH = 128
GENE_POWER = -0.25  # genes are weighted by their sd to this power
RIDGE = 0.1
VALUE_SCALE = 0.1
SHRINKAGE_LABELS = 1.0
SHRINKAGE_CLUSTERS = 10.0
CELLS_OF_CLUSTER = 10
# More cells than this are drawn by lot for the components; their exact solution needs a matrix of cells by cells.
MOST_CELLS = 3000


@dataclass(frozen=True, eq=False)
class TrainingCells:
    """The cells an adapter is fitted to.

    Attributes:
        rows: n cells. embedding: ``[n, R + H]``. num_components: R.
        groups: cells that should lie close together, by label; None: clusters are used instead.
        space: ``[n, any]`` in which clusters are searched, such as an integrated embedding; None: the components.
    """

    rows: Rows
    embedding: Floats
    num_components: int
    groups: Categories | None = None
    space: NDArray[np.floating] | None = None


def fit_adapter(cells: TrainingCells, num_genes: int, *, seed: int = 0) -> Adapter:
    """Fit an adapter. ``num_genes``: G.

    The map is ``(S + s tr(S) / k I)^(-1/2)``, S the covariance within groups and s the shrinkage, followed by a
    rotation to the WIDTH largest principal components. It shrinks the directions in which cells of a type differ, such
    as donors and technologies, if the groups span them.
    """
    own = fit_components(cells.rows, num_genes, seed=seed)
    mean = cells.embedding.mean(axis=0, dtype=np.float64).astype(np.float32)
    width = len(mean) + own.width
    start = Adapter(own, mean, cells.num_components, np.eye(width, dtype=np.float32))
    features = start.features(cells.rows, cells.embedding, Corrections(own)).astype(np.float64)
    groups, shrinkage = _groups(cells, features, seed)
    whitening = _whitening(features, groups, shrinkage)
    mapped = features @ whitening
    mapped /= np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-12)
    rotation = _largest(mapped, min(WIDTH, width))
    return Adapter(own, mean, cells.num_components, (whitening @ rotation).astype(np.float32))


def fit_components(rows: Rows, num_genes: int, *, seed: int = 0) -> Basis:
    """Principal components of log1p counts per thousand, genes weighted by sd^-0.25. Unmeasured values count as means.

    At most NUM_OWN, and a third of the number of cells.
    """
    if len(rows) > MOST_CELLS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_CELLS, replace=False))
        rows = Rows.concat([rows.slice(int(at), int(at) + 1) for at in chosen])
    value = np.log1p(np.expm1(rows.value.astype(np.float64)) * VALUE_SCALE)
    matrix = sparse.csr_matrix((value, rows.gene_index, rows.indptr), shape=(len(rows), num_genes))
    seen = np.zeros(num_genes)
    for number, gene_set in enumerate(rows.gene_sets):
        seen += gene_set.measured * int((rows.gene_set_of_row == number).sum())
    mean = np.asarray(matrix.sum(axis=0)).ravel() / np.maximum(seen, 1)
    square = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel() / np.maximum(seen, 1)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    floor = np.quantile(sd[sd > 0], 0.2) if (sd > 0).any() else 1.0
    weight = np.where(sd > 0, np.maximum(sd, floor) ** GENE_POWER, 0.0)
    vectors = _right_vectors(matrix.multiply(weight).tocsr(), mean * weight, rows, min(NUM_OWN, max(1, len(rows) // 3)))
    return Basis.of(vectors, weight.astype(np.float32), mean.astype(np.float32), ridge=RIDGE, value_scale=VALUE_SCALE)


def _right_vectors(
    weighted: sparse.csr_matrix, mean: NDArray[np.float64], rows: Rows, count: int
) -> NDArray[np.float64]:
    """``[G, count]`` of the matrix minus its mean where measured, by the eigenvectors of cells by cells."""
    centers = [gene_set.measured * mean for gene_set in rows.gene_sets]  # [G] each
    own = rows.gene_set_of_row
    gram = np.asarray((weighted @ weighted.T).todense())
    dots = np.stack([np.asarray(weighted @ center).ravel() for center in centers], axis=1)  # [n, sets]
    between = np.array([[float(a @ b) for b in centers] for a in centers])
    cross = dots[:, own]
    gram = gram - cross - cross.T + between[np.ix_(own, own)]
    values, left = np.linalg.eigh(gram)
    values, left = values[::-1][:count], left[:, ::-1][:, :count]
    kept = values > max(values[0], 0) * 1e-9
    left, values = left[:, kept], values[kept]
    back = np.asarray(weighted.T @ left)
    for number, center in enumerate(centers):
        back -= center[:, None] * left[own == number].sum(axis=0)
    vectors = back / np.sqrt(values)
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])]))


def _groups(cells: TrainingCells, features: NDArray[np.float64], seed: int) -> tuple[NDArray[np.int32], float]:
    if cells.groups is not None:
        return cells.groups.codes, SHRINKAGE_LABELS
    space = _largest_scores(features, 30) if cells.space is None else cells.space.astype(np.float64)
    count = int(np.clip(len(space) // CELLS_OF_CLUSTER, 4, 60))
    return kmeans(space, count, seed=seed), SHRINKAGE_CLUSTERS


def _whitening(features: NDArray[np.float64], groups: NDArray[np.int32], shrinkage: float) -> NDArray[np.float64]:
    width = features.shape[1]
    within, freedom = np.zeros((width, width)), 0
    for group in range(int(groups.max(initial=-1)) + 1):
        part = features[groups == group]
        if len(part) > 1:
            part = part - part.mean(axis=0)
            within += part.T @ part
            freedom += len(part) - 1
    within /= max(freedom, 1)
    values, vectors = np.linalg.eigh(within)
    scale = (np.maximum(values, 0) + max(shrinkage * np.trace(within) / width, 1e-12)) ** -0.5
    return np.asarray((vectors * (scale / scale.mean())) @ vectors.T)


def _largest(array: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """``[width, count]`` principal directions, not centred so that lengths keep their meaning."""
    found = np.linalg.eigh(array.T @ array)[1][:, ::-1][:, :count]
    largest = np.abs(found).argmax(axis=0)
    return np.asarray(found * np.sign(found[largest, np.arange(found.shape[1])]))


def _largest_scores(array: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    centered = array - array.mean(axis=0)
    return centered @ _largest(centered, min(count, array.shape[1]))
