"""Score the clustering of several embeddings on several labelled files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.training.evaluation.clustering.integration import score_batches
from scpalm.training.evaluation.common.baselines import COMPONENTS
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import EmbeddingSource, Methods
from scpalm.training.metrics.clustering import SEEDS, score_embedding
from scpalm.training.metrics.rows import Row


@dataclass(frozen=True)
class ClusteringOptions:
    """What to score.

    Attributes:
        methods: names; None: every method of every source, in order. seeds: of Leiden and of the folds.
        extended: also the best resolution and a logistic probe (see ``score_embedding``).
    """

    methods: Sequence[str] | None = None
    seeds: Sequence[int] = SEEDS
    extended: bool = False


def compare_clustering(
    datasets: Sequence[Dataset],
    sources: Sequence[EmbeddingSource],
    options: ClusteringOptions = ClusteringOptions(),
    *,
    progress: Callable[[str], None] = lambda text: None,
    on_array: Callable[[Dataset, str, NDArray[np.floating]], None] = lambda dataset, method, array: None,
) -> list[Row]:
    """Rows ``dataset, method, seed, zero_shot, width`` and the metrics of ``score_embedding``.

    A data set with batches also gets the metrics of ``score_batches``. ``note`` marks a baseline that is narrower than
    its name. A method that is not applicable to a data set is left out with a warning unless ``options`` name it.
    ``progress`` receives a description of each step, ``on_array`` every embedding (to draw it).

    Raises:
        InputError: a data set that a method cannot use.
        ValueError: a method that no source or several sources provide.
    """
    methods = Methods(sources, options.methods)
    rows: list[Row] = []
    for dataset in datasets:
        for method in methods.names:
            progress(f"{dataset.name}: {method}")
            array = methods.embed(method, dataset.matrix, dataset.name)
            if array is None:
                continue
            head: Row = {"dataset": dataset.name, "method": method}
            tail: Row = {"zero_shot": methods.zero_shot(method, dataset.name), "width": int(array.shape[1])}
            if array.shape[1] < COMPONENTS.get(method, 0):
                tail["note"] = f"{array.shape[1]} components: this file of {len(array)} cells has no more"
            on_array(dataset, method, array)
            if dataset.batches is not None:
                tail |= score_batches(array, dataset.labels, dataset.batches)
            rows += [
                {**head, **score, **tail}
                for score in score_embedding(array, dataset.labels, options.seeds, extended=options.extended)
            ]
    return rows
