"""Score embeddings when a user has few cells: leave-one-out kNN on cells drawn at random."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import EmbeddingSource, Methods
from scpalm.training.metrics.agreement import leave_one_out_accuracy
from scpalm.training.metrics.clustering import SEEDS
from scpalm.training.metrics.rows import Row

K = 5
METHODS = ("embedding", "basis", "h_C", "hvg2000", "pca10", "pca50")
BASELINES = ("hvg2000", "pca10", "pca50")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FewCellsOptions:
    """What to score.

    Attributes:
        cells: labelled cells per draw.
        methods: names; None: the model's three and the baselines.
        seeds: of the draws. Every method sees the same cells.
    """

    cells: int = 60
    methods: Sequence[str] | None = None
    seeds: Sequence[int] = SEEDS


def compare_few_cells(
    datasets: Sequence[Dataset],
    sources: Sequence[EmbeddingSource],
    options: FewCellsOptions,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, method, seed, knn_accuracy, cells``: kNN with k 5 among the drawn cells.

    Every method embeds the drawn cells alone, so baselines are fitted to these. Data sets with too few labelled cells
    are left out with a warning.

    Raises:
        InputError: no data set has enough labelled cells, or cells cannot be embedded.
        ValueError: a method that no source provides.
    """
    methods = Methods(sources, options.methods, METHODS)
    rows: list[Row] = []
    for dataset in _large_enough(datasets, options.cells):
        labelled = np.flatnonzero(dataset.labels.labelled)
        for seed in options.seeds:
            progress(f"{dataset.name}: draw {seed} of {options.cells} cells")
            drawn = np.sort(np.random.default_rng([seed, 0x666577]).permutation(labelled)[: options.cells])
            matrix, truth = dataset.matrix.select(drawn), dataset.labels.codes[drawn]
            for method in methods.names:
                array = methods.embed(method, matrix, dataset.name)
                if array is None:
                    continue
                row: Row = {"task": "few_cells", "dataset": dataset.name, "method": method, "seed": int(seed)}
                row |= {"knn_accuracy": leave_one_out_accuracy(array, truth, k=K), "cells": options.cells}
                row |= {"zero_shot": methods.zero_shot(method, dataset.name), "width": int(array.shape[1])}
                rows.append(row)
    return rows


def _large_enough(datasets: Sequence[Dataset], cells: int) -> list[Dataset]:
    """Data sets with that many labelled cells. Raises InputError if there is none or the number is too small."""
    if cells <= K:
        raise InputError("too-few-cells", f"A vote of {K} neighbours needs {K + 1} cells.", hint="Raise --cells.")
    enough = [dataset for dataset in datasets if dataset.labels.labelled.sum() >= cells]
    for dataset in datasets:
        if dataset.labels.labelled.sum() < cells:
            text = f"{dataset.name} has {dataset.labels.labelled.sum()} labelled cells, fewer than {cells}."
            if not enough:
                raise InputError("too-few-cells", text, hint="Lower --cells.")
            _log.warning("%s It is left out.", text)
    return enough
