"""Clustering scores of many methods on many labelled files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.training.evaluation.clustering.integration import score_batches
from scpalm.training.evaluation.common.baselines import COMPONENTS
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import EmbeddingSource
from scpalm.training.metrics.clustering import SEEDS, score_embedding
from scpalm.training.metrics.rows import Row


def compare_clustering(
    datasets: Sequence[Dataset],
    sources: Sequence[EmbeddingSource],
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    extended: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    on_array: Callable[[Dataset, str, NDArray[np.floating]], None] = lambda dataset, method, array: None,
) -> list[Row]:
    """Rows ``dataset, method, seed, zero_shot, width`` and the metrics of ``score_embedding``.

    Every method of every source, in order, or those of ``methods``. ``note`` says where a baseline is narrower than
    its name. ``progress`` is told what is being scored. ``on_array`` is given every embedding, to draw it. A data set
    with batches also has the metrics of ``score_batches``.

    Raises:
        InputError: a dataset that a method cannot take.
        ValueError: a method that no source, or more than one, knows.
    """
    owners = dict(_owners(sources))
    chosen = list(owners) if methods is None else list(methods)
    unknown = [method for method in chosen if method not in owners]
    if unknown:
        raise ValueError(f"Unknown method '{unknown[0]}': choose of {', '.join(owners)}.")
    rows: list[Row] = []
    for dataset in datasets:
        for method in chosen:
            progress(f"{dataset.name}: {method}")
            source = owners[method]
            array = source.embed(method, dataset.matrix)
            head: Row = {"dataset": dataset.name, "method": method}
            tail: Row = {"zero_shot": source.zero_shot(method, dataset.name), "width": int(array.shape[1])}
            if array.shape[1] < COMPONENTS.get(method, 0):
                tail["note"] = f"{array.shape[1]} components: this file of {len(array)} cells has no more"
            on_array(dataset, method, array)
            if dataset.batches is not None:
                tail |= score_batches(array, dataset.labels, dataset.batches)
            rows += [
                {**head, **score, **tail} for score in score_embedding(array, dataset.labels, seeds, extended=extended)
            ]
    return rows


def _owners(sources: Sequence[EmbeddingSource]) -> Iterator[tuple[str, EmbeddingSource]]:
    seen: set[str] = set()
    for source in sources:
        for method in source.methods:
            if method in seen:
                raise ValueError(f"Two sources know the method '{method}'.")
            seen.add(method)
            yield method, source
