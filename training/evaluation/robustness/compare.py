"""How far embeddings move when a tenth of the counts, or a few genes, are missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.neighbors import nearest
from scpalm.training.evaluation.common.count_table import count_table, select_genes
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import EmbeddingSource
from scpalm.training.evaluation.common.thinning import has_counts, require_counts, thin
from scpalm.training.evaluation.robustness.fitted_components import FittedComponents
from scpalm.training.metrics.rows import Row

METHODS = ("embedding", "basis", "h_C", "pca50")
NUM_COMPONENTS = 50
KEPT_SHARE = 0.9
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RobustnessOptions:
    """What to score.

    Attributes:
        methods: of the model, or ``pca50``.
        seeds: of the thinnings and the removed genes.
        num_genes: how many genes with a count are removed.
    """

    methods: Sequence[str] = METHODS
    seeds: Sequence[int] = (0,)
    num_genes: int = 16


@dataclass(frozen=True, eq=False)
class Variant:
    """Cells of a file, perhaps with fewer counts or genes. columns: of the genes in the original file."""

    matrix: CellMatrix
    columns: NDArray[np.int64]


def compare_robustness(
    datasets: Sequence[Dataset],
    source: EmbeddingSource,
    options: RobustnessOptions = RobustnessOptions(),
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, method, seed`` with three means over cells.

    ``thinning_cosine``: between two independent thinnings of a cell that keep 90 % of its counts. ``neighbor_cosine``:
    between a cell and the other cell with the largest cosine. The first should be well above the second, or noise hides
    which cells are neighbours. ``gene_removal_move``: absolute change of a coordinate when genes are removed from the
    file, in units of its sd over cells. Components are fitted to the whole file, and the changed cells projected.

    Files without raw counts are left out with a warning.

    Raises:
        InputError: no file has raw counts, or cells cannot be embedded.
        ValueError: an unknown method.
    """
    unknown = [name for name in options.methods if name not in (*source.methods, "pca50")]
    if unknown:
        raise ValueError(f"Unknown method '{unknown[0]}': choose one of {', '.join((*source.methods, 'pca50'))}.")
    rows: list[Row] = []
    for dataset in _with_counts(datasets):
        fitted = FittedComponents(dataset.matrix, NUM_COMPONENTS) if "pca50" in options.methods else None
        for seed in options.seeds:
            progress(f"{dataset.name}: seed {seed}")
            arrays: dict[str, list[NDArray[np.floating]]] = {method: [] for method in options.methods}
            for variant in _variants(dataset.matrix, options.num_genes, seed):
                for method in options.methods:
                    if method == "pca50" and fitted is not None:
                        arrays[method].append(fitted.project(variant.matrix, variant.columns))
                    else:
                        arrays[method].append(source.embed(method, variant.matrix))
            for method, (whole, one, other, fewer) in arrays.items():
                row: Row = {"task": "robustness", "dataset": dataset.name, "method": method, "seed": int(seed)}
                row |= {
                    "thinning_cosine": round(float((_unit(one) * _unit(other)).sum(axis=1).mean()), 6),
                    "neighbor_cosine": round(_neighbor_cosine(whole), 6),
                    "gene_removal_move": round(_mean_move(whole, fewer), 6),
                    "cells": len(whole),
                    "genes_removed": options.num_genes,
                    "zero_shot": method != "pca50" and source.zero_shot(method, dataset.name),
                    "width": int(whole.shape[1]),
                }
                rows.append(row)
    return rows


def _with_counts(datasets: Sequence[Dataset]) -> list[Dataset]:
    usable = [dataset for dataset in datasets if has_counts(dataset.matrix)]
    if not usable:
        require_counts(datasets[0].matrix, datasets[0].name)
    for dataset in datasets:
        if dataset not in usable:
            _log.warning("%s is left out: it has no raw counts.", dataset.name)
    return usable


def _variants(matrix: CellMatrix, num_genes: int, seed: int) -> list[Variant]:
    """The cells, two thinnings of them, and the cells without some genes."""
    all_columns = np.arange(matrix.num_genes)
    thinned = [thin(matrix, keep=KEPT_SHARE, seed=2 * seed + which).matrix for which in (0, 1)]
    counted = np.flatnonzero(count_table(matrix).getnnz(axis=0))
    removed = np.random.default_rng([seed, 0x67656E65]).permutation(counted)[:num_genes]
    columns = np.setdiff1d(all_columns, removed)
    # The totals are those of the remaining genes, as in a file that never had the others.
    fewer = replace(select_genes(matrix, columns), totals=matrix.totals)
    return [*(Variant(part, all_columns) for part in (matrix, *thinned)), Variant(fewer, columns)]


def _unit(array: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(array, dtype=np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _neighbor_cosine(array: NDArray[np.floating]) -> float:
    """Mean over cells of the largest cosine with another cell."""
    distance = nearest(_unit(array), 1).distance[:, 0]
    return float((1 - np.square(distance) / 2).mean())


def _mean_move(whole: NDArray[np.floating], changed: NDArray[np.floating]) -> float:
    """Mean absolute change of the coordinates that vary, in units of their sd over cells."""
    sd = np.asarray(whole, dtype=np.float64).std(axis=0)
    varies = sd > 0
    return float((np.abs(changed - whole)[:, varies] / sd[varies]).mean())
