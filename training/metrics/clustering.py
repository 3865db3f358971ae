"""Clustering: do neighbours in an embedding share their labels? (Paper, section 4.1.)

Protocol: exact kNN graph (k = 15), Leiden at resolution 1.0, agreement of the clusters with the labels. The resolution
is never chosen with the labels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import igraph
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.layout.fuzzy_graph import fuzzy_graph
from scpalm.model.neighbors import nearest
from scpalm.training.metrics import agreement
from scpalm.training.metrics.labels import Labels, encode_labels
from scpalm.training.metrics.rows import Row

K = 15
RESOLUTION = 1.0
RESOLUTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
# A probe on thousands of columns takes minutes, and mostly measures how many columns there are.
PROBE_WIDTH = 512
LEIDEN_ITERATIONS = 2
SEEDS = tuple(range(10))
MIN_CELLS = K + 1
# Enough that a vote of K cells from four of five folds rarely needs a second search.
CANDIDATES = 4 * K


def score_embedding(
    array: NDArray[np.floating],
    labels: Labels | Sequence[object] | NDArray[np.generic] | pd.Series,
    seeds: Sequence[int] = SEEDS,
    *,
    extended: bool = False,
) -> list[Row]:
    """Score an array of cells against labels, once per seed.

    Args:
        array: ``[cells, width]`` finite numbers, used without scaling or PCA.
        labels: ``[cells]``. Unlabelled cells (NaN, empty, 'unassigned': see ``encode_labels``) stay in the array and
            the graph but are left out of every score.
        seeds: of Leiden and of the folds. The graph and the silhouette do not depend on them.
        extended: also scores that use the labels: the best of nine resolutions, and a logistic probe (up to 512
            columns).

    Returns:
        One row per seed: ``seed``, ``ari``, ``nmi``, ``silhouette``, ``knn_accuracy``, ``knn_macro_f1``,
        ``num_clusters``, ``cells`` (labelled ones), ``labels``. Extended: ``best_ari, best_nmi`` (best over the
        resolutions, not comparable with ``ari``), ``best_resolution`` of ARI, ``probe_accuracy, probe_macro_f1``.

    Raises:
        InputError: non-finite numbers, different lengths, fewer than 16 cells, or labels that cannot be scored.

    Example:
        >>> score_embedding(adata.obsm["X_scpalm"], adata.obs["cell_type"], seeds=[0])[0]["ari"]
    """
    coded = labels if isinstance(labels, Labels) else encode_labels(labels)
    array = _checked(array, coded)
    labelled = coded.labelled
    truth = coded.codes[labelled]
    neighbors = nearest(array, min(CANDIDATES, len(array) - 1))
    graph = to_igraph(fuzzy_graph(neighbors, K))
    width = agreement.silhouette(array[labelled], truth)
    rows: list[Row] = []
    for seed in seeds:
        clusters = leiden(graph, seed)
        knn = agreement.knn_score(array, coded.codes, neighbors, seed=seed, k=K)
        rows.append(
            {
                "seed": int(seed),
                "ari": agreement.ari(truth, clusters[labelled]),
                "nmi": agreement.nmi(truth, clusters[labelled]),
                "silhouette": width,
                "knn_accuracy": knn.accuracy,
                "knn_macro_f1": knn.macro_f1,
                "num_clusters": int(clusters.max()) + 1,
                "cells": int(labelled.sum()),
                "labels": len(coded.names),
            }
        )
        if extended:
            rows[-1] |= best_resolution(graph, truth, labelled, seed)
            if array.shape[1] <= PROBE_WIDTH:
                probe = agreement.probe_score(array[labelled], truth, seed=seed)
                rows[-1] |= {"probe_accuracy": probe.accuracy, "probe_macro_f1": probe.macro_f1}
    return rows


def to_igraph(graph: sparse.csr_matrix) -> igraph.Graph:
    """Undirected weighted graph of a symmetric ``[cells, cells]`` matrix."""
    upper = sparse.triu(graph, k=1).tocoo()
    edges = np.column_stack([upper.row, upper.col])
    return igraph.Graph(n=graph.shape[0], edges=edges, directed=False, edge_attrs={"weight": upper.data})


def best_resolution(
    graph: igraph.Graph, truth: NDArray[np.integer], labelled: NDArray[np.bool_], seed: int
) -> dict[str, str | int | float | bool]:
    """``best_ari, best_nmi`` over the nine resolutions, and the lowest resolution with the best ARI."""
    found = []
    for resolution in RESOLUTIONS:
        clusters = leiden(graph, seed, resolution)[labelled]
        found.append((agreement.ari(truth, clusters), agreement.nmi(truth, clusters)))
    aris = [ari for ari, _ in found]
    return {
        "best_ari": max(aris),
        "best_nmi": max(nmi for _, nmi in found),
        "best_resolution": RESOLUTIONS[int(np.argmax(aris))],
    }


def leiden(graph: igraph.Graph, seed: int, resolution: float = RESOLUTION) -> NDArray[np.int64]:
    """``[cells]`` cluster of each cell: igraph's Leiden, modularity, 2 iterations."""
    with _igraph_seed(seed):
        partition = graph.community_leiden(
            objective_function="modularity",
            weights="weight",
            resolution=resolution,
            n_iterations=LEIDEN_ITERATIONS,
        )
    return np.asarray(partition.membership, dtype=np.int64)


@contextmanager
def _igraph_seed(seed: int) -> Iterator[None]:
    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        # The default of igraph: the generator of the random module.
        igraph.set_random_number_generator(random)


def _checked(array: NDArray[np.floating], labels: Labels) -> NDArray[np.float64]:
    wide = np.asarray(array, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[1] < 1:
        raise InputError(
            "embedding-shape", f"The embedding has shape {wide.shape}.", hint="Give one row of numbers per cell."
        )
    if len(wide) != len(labels.codes):
        raise InputError(
            "length-mismatch",
            f"The embedding has {len(wide)} cells and there are {len(labels.codes)} labels.",
            hint="Give one label per cell ('' for none).",
        )
    if len(wide) < MIN_CELLS:
        raise InputError(
            "too-few-cells",
            f"There are {len(wide)} cells, but a graph of {K} neighbours needs {MIN_CELLS}.",
            hint="Evaluate on more cells.",
        )
    bad = np.flatnonzero(~np.isfinite(wide).all(axis=1))
    if len(bad):
        raise InputError(
            "not-finite",
            f"The embedding of cell {bad[0]} is not finite ({len(bad)} such cells).",
            hint="Check for a training that diverged or a broken bundle.",
        )
    return wide
