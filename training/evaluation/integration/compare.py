"""Compare ways to take batches out of an embedding by the metrics of scIB (Luecken et al. 2022), in one run.

Letters: B cells.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.integration.integrate import can_integrate, harmony, integrate
from scpalm.model.io.labels import Categories
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
from scpalm.training.evaluation.common.joint_baselines import JointBaselines
from scpalm.training.evaluation.common.source import NotApplicable
from scpalm.training.metrics.rows import Row

METHODS = ("pca50", "harmony", "scvi", "h_C", "embedding", "embedding_harmony", "integrate")
ADAPTED = "adapted"
# Names of scib-metrics -> names of our rows.
_COLUMNS = {
    "Total": "total",
    "Bio conservation": "bio",
    "Batch correction": "batch",
    "KMeans NMI": "nmi",
    "KMeans ARI": "ari",
    "Silhouette label": "silhouette",
    "Isolated labels": "isolated",
    "cLISI": "clisi",
    "BRAS": "bras",
    "iLISI": "ilisi",
    "KBET": "kbet",
    "Graph connectivity": "connectivity",
    "PCR comparison": "pcr",
}
_EFFECT_NEIGHBORS, _FOLDS = 15, 5


@dataclass(frozen=True)
class IntegrationOptions:
    """What to compare.

    Attributes:
        methods: names; None: all. seed: of Harmony and scVI.
        effects: ``[B]`` a condition of each cell that integration should keep, such as a treatment; None for none.
    """

    methods: Sequence[str] | None = None
    seed: int = 0
    effects: Sequence[str] | None = None


def compare_integration(
    dataset: Dataset,
    model: BundleEmbeddings,
    options: IntegrationOptions = IntegrationOptions(),
    *,
    adapted: BundleEmbeddings | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, method, total, batch, bio, seconds`` and each metric.

    ``total`` is 0.4 batch + 0.6 bio. Labelled cells only. ``effect_accuracy``, with effects: balanced accuracy of a
    vote of 15 neighbours for the effect, over cells of the same label.

    Args:
        dataset: with batches. model: the bundle. adapted: a bundle that was adapted to other cells of the same kind.

    Methods whose package is not installed are left out. Raises InputError if scib-metrics is missing or there is one
    batch, ValueError for an unknown method.
    """
    known = (*METHODS, *((ADAPTED,) if adapted is not None else ()))
    chosen = tuple(options.methods or known)
    if unknown := set(chosen) - set(known):
        raise ValueError(f"Unknown method '{min(unknown)}': choose from {', '.join(known)}.")
    labelled = np.flatnonzero(dataset.labels.labelled)
    batches = np.asarray(dataset.batches or (), dtype=str)
    if len(set(batches)) < 2:
        raise InputError("one-batch", f"{dataset.name} has one batch.", hint="Name another column with --batch-key.")
    ways = _Ways(dataset.matrix, batches, model, adapted, options.seed)
    arrays: dict[str, NDArray[np.floating]] = {}
    seconds: dict[str, float] = {}
    for method in ("pca50", *(name for name in chosen if name != "pca50")):
        progress(f"{dataset.name}: {method}")
        started = time.perf_counter()
        try:
            arrays[method] = ways.embed(method)[labelled]
        except NotApplicable as error:  # its package is not installed, for example
            progress(f"{dataset.name}: {method} is left out: {error}")
            continue
        seconds[method] = round(time.perf_counter() - started, 2)
    progress(f"{dataset.name}: metrics")
    codes = dataset.labels.codes[labelled]
    scores = scib_scores(arrays, codes, batches[labelled])
    rows: list[Row] = []
    for method in (name for name in chosen if name in arrays):
        row: Row = {"task": "integration", "dataset": dataset.name, "method": method, "seed": options.seed}
        row |= {ours: round(float(scores.loc[method, name]), 6) for name, ours in _COLUMNS.items() if name in scores}
        row |= {"seconds": seconds[method], "batches": len(set(batches)), "cells": len(labelled)}
        if options.effects is not None:
            effects = np.asarray(options.effects, dtype=str)[labelled]
            row["effect_accuracy"] = effect_accuracy(arrays[method], codes, effects)
        rows.append(row)
    return rows


class _Ways:
    """Embeddings of one file by name; each is computed once."""

    def __init__(
        self,
        matrix: CellMatrix,
        batches: NDArray[np.str_],
        model: BundleEmbeddings,
        adapted: BundleEmbeddings | None,
        seed: int,
    ) -> None:
        self._matrix, self._model, self._adapted = matrix, model, adapted
        self._names = [str(batch) for batch in batches]
        self._baselines = JointBaselines(self._names, seed=seed)

    def embed(self, method: str) -> NDArray[np.floating]:
        """``[B, width]``."""
        if method in self._baselines.methods:
            return self._baselines.embed(method, self._matrix)
        if method == ADAPTED and self._adapted is not None:
            return self._adapted.embed("embedding", self._matrix)
        if method == "h_C":
            return self._model.embed(method, self._matrix)
        if method in ("embedding_harmony", "integrate") and not can_integrate():
            raise NotApplicable(
                "no-harmonypy",
                "Harmony needs harmonypy, which is not installed.",
                hint="Install it with pip install 'scpalm[integrate]'.",
            )
        embedding, batches = self._model.embed("embedding", self._matrix), Categories.of(self._names)
        if method == "embedding_harmony":
            return harmony(embedding.astype(np.float64), batches)
        if method == "integrate":
            return integrate(embedding, self._model.num_components, batches).values
        return embedding


def scib_scores(
    arrays: dict[str, NDArray[np.floating]], labels: NDArray[np.generic], batches: NDArray[np.str_]
) -> pd.DataFrame:
    """Metrics of scib-metrics by method. PCR compares with ``pca50``, which must be there. Raises InputError."""
    try:
        from scib_metrics.benchmark import Benchmarker
    except ImportError as error:
        raise InputError(
            "no-scib-metrics",
            "These metrics need scib-metrics, which is not installed.",
            hint="Install it with pip install 'scpalm[integration]'.",
        ) from error
    from anndata import AnnData

    index = [str(row) for row in range(len(batches))]
    obs = pd.DataFrame({"label": pd.Categorical(labels.astype(str)), "batch": pd.Categorical(batches)}, index=index)
    cells = AnnData(arrays["pca50"].astype(np.float32), obs=obs)
    for method, array in arrays.items():
        cells.obsm[method] = np.asarray(array, dtype=np.float32)
    with _quiet():
        found = Benchmarker(
            cells, "batch", "label", list(arrays), pre_integrated_embedding_obsm_key="pca50", progress_bar=False
        )
        found.benchmark()
        return found.get_results(min_max_scale=False)


def effect_accuracy(array: NDArray[np.floating], labels: NDArray[np.generic], effects: NDArray[np.str_]) -> float:
    """Mean over labels of the balanced accuracy with which neighbours tell a cell's effect; 0.5 for two: chance."""
    found = []
    for label in np.unique(labels):
        chosen = np.flatnonzero(labels == label)
        kinds, sizes = np.unique(effects[chosen], return_counts=True)
        if len(kinds) < 2 or sizes.min() < 2 * _FOLDS:
            continue
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        vote = KNeighborsClassifier(min(_EFFECT_NEIGHBORS, int(sizes.min())))
        scores = cross_val_score(vote, array[chosen], effects[chosen], cv=folds, scoring="balanced_accuracy")
        found.append(float(scores.mean()))
    return round(float(np.mean(found)), 6) if found else float("nan")


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
