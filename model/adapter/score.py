"""Scores of an embedding on held-out cells, before and after adaptation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.rows import Rows
from scpalm.model.neighbors import NeighborSearch
from scpalm.model.read_out.basis import Basis

NEIGHBORS = 15


def label_accuracy(
    train: NDArray[np.floating], labels: NDArray[np.int32], held_out: NDArray[np.floating], truth: NDArray[np.int32]
) -> float:
    """Share of held-out cells whose label is that of most of their 15 nearest training cells. -1: no label."""
    known, asked = labels >= 0, truth >= 0
    found = NeighborSearch(train[known]).query(held_out[asked], min(NEIGHBORS, int(known.sum()))).index
    votes = labels[known][found]
    winner = np.stack([(votes == label).sum(axis=1) for label in range(int(labels.max()) + 1)], axis=1).argmax(axis=1)
    return float((winner == truth[asked]).mean())


def thinned(rows: Rows, totals: NDArray[np.float64], share: float, seed: int) -> Rows:
    """The cells with a random share of their counts; cells that would be empty stay unchanged."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(rows)), rows.lengths())
    counts = np.rint(np.expm1(rows.value.astype(np.float64)) * totals[owner] / 1e4).clip(min=1).astype(np.int64)
    kept = random.binomial(counts, share)
    left = np.bincount(owner, weights=kept, minlength=len(rows))
    kept = np.where(left[owner] > 0, kept, counts)
    total = np.bincount(owner, weights=kept, minlength=len(rows))
    whole = np.bincount(owner, weights=counts, minlength=len(rows))
    depth = totals * total / np.maximum(whole, 1)
    value = np.log1p(1e4 * kept / np.maximum(depth[owner], 1e-9)).astype(np.float32)
    some = kept > 0
    lengths = np.bincount(owner[some], minlength=len(rows))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows(indptr, rows.gene_index[some], value[some], rows.gene_sets, rows.gene_set_of_row)


def agreement(one: NDArray[np.floating], other: NDArray[np.floating], among: NDArray[np.floating]) -> float:
    """Mean share of the 15 nearest cells that two embeddings of the same cells have in common."""
    search, num = NeighborSearch(among), min(NEIGHBORS, len(among))
    a, b = search.query(one, num).index, search.query(other, num).index
    return float(np.mean([len(np.intersect1d(x, y)) / num for x, y in zip(a, b, strict=True)]))


def unexplained(rows: Rows, bases: Sequence[Basis]) -> float:
    """Share of the variance of values that no combination of the components explains, over measured genes.

    The last basis says how values are centred and weighted.
    """
    last = bases[-1]
    value = np.log1p(np.expm1(rows.value.astype(np.float64)) * last.value_scale)
    matrix = sparse.csr_matrix((value, rows.gene_index, rows.indptr), shape=(len(rows), len(last.mean)))
    left = total = 0.0
    for number, gene_set in enumerate(rows.gene_sets):
        chosen = np.flatnonzero(rows.gene_set_of_row == number)
        genes = np.flatnonzero(gene_set.measured & (last.gene_weight > 0))
        if not len(chosen) or not len(genes):
            continue
        y = (np.asarray(matrix[chosen][:, genes].todense()) - last.mean[genes]) * last.gene_weight[genes]
        parts = [basis.components[genes] * basis.scale.astype(np.float64) for basis in bases if basis.width]
        columns = np.concatenate(parts, axis=1)
        fitted = columns @ np.linalg.lstsq(columns, y.T, rcond=1e-6)[0]
        left, total = left + float(((y.T - fitted) ** 2).sum()), total + float((y**2).sum())
    return left / max(total, 1e-12)
