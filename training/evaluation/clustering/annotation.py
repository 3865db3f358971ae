"""Annotation: transfer labels from one file to another, in h_C and in principal components of both files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import accuracy_score, f1_score

from scpalm.model.annotation.reference import UNKNOWN, Reference
from scpalm.model.errors import InputError
from scpalm.model.io.labels import Categories
from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.count_table import select_genes
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.principal_components import components
from scpalm.training.evaluation.common.source import EmbeddingSource
from scpalm.training.metrics.labels import Labels
from scpalm.training.metrics.rows import Row

METHODS = ("h_C", "pca50")
NUM_COMPONENTS = 50


def compare_annotation(
    reference: Dataset,
    queries: Sequence[Dataset],
    source: EmbeddingSource,
    *,
    label_map: dict[str, str] | None = None,
    methods: Sequence[str] = METHODS,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, reference, method``: ``accuracy, macro_f1`` over query cells whose label the reference has.

    Cells called unknown count as wrong in ``accuracy``; ``nearest_accuracy`` uses their nearest label.
    ``unknown_share`` is their share, ``unknown_share_elsewhere`` that among cells whose label the reference lacks.

    Args:
        label_map: query label -> reference label, for types that the two files name differently.

    Raises:
        InputError: the files share no label, or cells cannot be embedded.
    """
    rows: list[Row] = []
    for query in queries:
        truth = _truth(query.labels, label_map or {})
        known = np.isin(truth, reference.labels.names)
        if not known.any():
            raise InputError(
                "no-common-label",
                f"{query.name} and {reference.name} have no label in common: "
                f"{', '.join(query.labels.names[:5])} and {', '.join(reference.labels.names[:5])}.",
                hint="Map the labels with --map query=reference.",
            )
        for method in methods:
            progress(f"{reference.name} -> {query.name}: {method}")
            left, right = _arrays(method, reference, query, source)
            found = Reference.of(left, Categories.of(_names(reference.labels))).annotate(right)
            unknown = found.label == UNKNOWN
            names = sorted(set(truth[known]))
            row: Row = {"task": "annotation", "dataset": query.name, "reference": reference.name, "method": method}
            row |= {
                "seed": 0,
                "accuracy": float(accuracy_score(truth[known], found.label[known].astype(str))),
                "macro_f1": _f1(truth[known], found.label[known], names),
                "nearest_accuracy": float((truth[known] == found.nearest_label[known]).mean()),
                "nearest_macro_f1": _f1(truth[known], found.nearest_label[known], names),
                "unknown_share": float(unknown[known].mean()),
            }
            elsewhere = ~known & (truth != "")
            if elsewhere.any():
                row["unknown_share_elsewhere"] = float(unknown[elsewhere].mean())
            row |= {"cells": int(known.sum()), "width": int(left.shape[1])}
            row["zero_shot"] = method != "pca50" and source.zero_shot(method, query.name)
            rows.append(row)
    return rows


def _arrays(
    method: str, reference: Dataset, query: Dataset, source: EmbeddingSource
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    if method != "pca50":
        return source.embed(method, reference.matrix), source.embed(method, query.matrix)
    # Fitted to both files, on the genes they share.
    place = {gene: i for i, gene in enumerate(query.matrix.genes)}
    pairs = [(i, place[gene]) for i, gene in enumerate(reference.matrix.genes) if gene in place]
    if not pairs:
        raise InputError(
            "no-common-gene",
            f"{reference.name} and {query.name} share no gene name.",
            hint="Use the same gene names, or leave pca50 out with --methods h_C.",
        )
    left, right = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    parts = [
        log_normalized(select_genes(reference.matrix, left)),
        log_normalized(select_genes(query.matrix, right)),
    ]
    joint = components(sparse.vstack(parts, format="csr"), NUM_COMPONENTS)
    return joint[: reference.matrix.num_cells], joint[reference.matrix.num_cells :]


def _truth(labels: Labels, label_map: dict[str, str]) -> NDArray[np.object_]:
    return np.array([label_map.get(str(name), name) for name in _names(labels)], dtype=object)


def _names(labels: Labels) -> NDArray[np.object_]:
    return np.array([*labels.names, ""], dtype=object)[labels.codes]


def _f1(truth: NDArray[np.object_], guess: NDArray[np.object_], names: Sequence[str]) -> float:
    return float(f1_score(truth.astype(str), guess.astype(str), labels=list(names), average="macro", zero_division=0))
