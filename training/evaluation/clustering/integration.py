"""Batch mixing and conservation of cell types in an embedding: iLISI, cLISI, graph connectivity (scib-metrics)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.neighbors import nearest
from scpalm.training.metrics.labels import Labels
from scpalm.training.metrics.rows import Row

NUM_NEIGHBORS = 90  # as in the benchmark of scib-metrics: a perplexity of 30
_CONNECTIVITY_NEIGHBORS = 15


def score_batches(array: NDArray[np.floating], labels: Labels, batches: Sequence[str]) -> Row:
    """Batch and label scores from exact neighbours; each cell counts as its first neighbour.

    ``ilisi``: 0 if neighbours share their batch, 1 if batches are perfectly mixed; over all cells. ``clisi``: 1 if
    neighbours share their label; over labelled cells. ``graph_connectivity``: share of a label's cells in its largest
    connected component, mean over labels; over labelled cells.

    Sources: Korsunsky et al. 2019 (LISI), Luecken et al. 2022 (scIB).

    Raises:
        InputError: scib-metrics is missing, there is a single batch, or a cell has no batch.
    """
    try:
        from scib_metrics import clisi_knn, graph_connectivity, ilisi_knn
        from scib_metrics.nearest_neighbors import NeighborsResults
    except ImportError as error:
        raise InputError(
            "no-scib-metrics",
            "Batch metrics need scib-metrics, which is not installed.",
            hint="Install it with pip install 'scpalm[integration]', or leave --batch-key out.",
        ) from error
    names, batch = np.unique(np.asarray(batches, dtype=str), return_inverse=True)
    if len(names) < 2 or len(batch) != len(array) or "" in names:
        raise InputError(
            "one-batch",
            f"There are {len(names)} batches in the column, for {len(array)} cells.",
            hint="Name a column of obs with two batches or more, and one for every cell, with --batch-key.",
        )

    def neighbors(cells: NDArray[np.floating], number: int) -> NeighborsResults:
        found = nearest(cells, min(number, len(cells)) - 1)
        own = np.arange(len(cells))[:, None]
        distance = np.concatenate([np.zeros((len(cells), 1)), found.distance], axis=1)
        return NeighborsResults(np.concatenate([own, found.index], axis=1), distance)

    labelled, truth = array[labels.labelled], labels.codes[labels.labelled]
    return {
        "ilisi": round(float(ilisi_knn(neighbors(array, NUM_NEIGHBORS), batch)), 6),
        "clisi": round(float(clisi_knn(neighbors(labelled, NUM_NEIGHBORS), truth)), 6),
        "graph_connectivity": round(float(graph_connectivity(neighbors(labelled, _CONNECTIVITY_NEIGHBORS), truth)), 6),
        "batches": len(names),
    }
