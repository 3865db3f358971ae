"""Transfer the labels of all other batches to each batch of a file, in several embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.joint_baselines import JointBaselines
from scpalm.training.evaluation.common.source import EmbeddingSource, Methods
from scpalm.training.metrics.agreement import TransferScore, transfer_scores
from scpalm.training.metrics.rows import Row

K = 10
METHODS = ("embedding", "basis", "h_C", *JointBaselines.methods)


@dataclass(frozen=True)
class TransferOptions:
    """What to score.

    Attributes:
        methods: names; None: the model's three and the joint baselines.
        seed: of Harmony and scVI.
    """

    methods: Sequence[str] | None = None
    seed: int = 0


def compare_transfer(
    datasets: Sequence[Dataset],
    source: EmbeddingSource,
    options: TransferOptions = TransferOptions(),
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, method, transfer_accuracy``: the mean over batches, then each batch as ``dataset: batch``.

    Labels come by vote of the 10 nearest cells of the other batches. Cells with a label that no other batch has are
    left out; ``unseen_cells`` is their number. Baselines are fitted to all batches jointly, without the labels.

    Args:
        datasets: with batches.
        source: the model.

    Raises:
        InputError: a file has a single batch, a cell without a batch, or batches without a label in common.
        ValueError: an unknown method.
    """
    means: list[Row] = []
    single: list[Row] = []
    for dataset in datasets:
        names, batch = _batches(dataset)
        baselines = JointBaselines(dataset.batches or (), seed=options.seed)
        methods = Methods([source, baselines], options.methods, METHODS)
        for method in methods.names:
            progress(f"{dataset.name}: {method}")
            array = methods.embed(method, dataset.matrix, dataset.name)
            if array is None:
                continue
            scores = list(transfer_scores(array, dataset.labels.codes, batch, k=K))
            if not scores:
                raise InputError(
                    "no-common-label",
                    f"{dataset.name}: no two batches have a label in common.",
                    hint="Name other columns with --batch-key and --label.",
                )
            tail: Row = {"zero_shot": methods.zero_shot(method, dataset.name), "width": int(array.shape[1])}
            head: Row = {"task": "transfer", "method": method, "seed": options.seed}
            means.append({**head, "dataset": dataset.name, **_mean(scores), **tail})
            for score in scores:
                name = names[score.batch]
                single.append({**head, "dataset": f"{dataset.name}: {name}", "batch": name, **_mean([score]), **tail})
    return means + single


def _batches(dataset: Dataset) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the batches, and ``[cells]`` codes. Raises InputError."""
    names, batch = np.unique(np.asarray(dataset.batches or (), dtype=str), return_inverse=True)
    if len(names) < 2 or "" in names:
        raise InputError(
            "one-batch",
            f"{dataset.name}: there are {len(names)} batches in the column, for {dataset.matrix.num_cells} cells.",
            hint="Name a column of obs with two batches or more, and one for every cell, with --batch-key.",
        )
    return [str(name) for name in names], batch.astype(np.int64)


def _mean(scores: Sequence[TransferScore]) -> Row:
    return {
        "transfer_accuracy": round(float(np.mean([score.accuracy for score in scores])), 6),
        "batches": len(scores),
        "cells": sum(score.cells for score in scores),
        "unseen_cells": sum(score.unseen_cells for score in scores),
    }
