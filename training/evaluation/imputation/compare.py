"""Imputation: compare the values that each method imputes with counts that were held back (paper B.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.count_table import select_genes
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.detected import given_detected
from scpalm.training.evaluation.common.principal_components import components
from scpalm.training.evaluation.common.thinning import Thinned, require_counts, thin
from scpalm.training.evaluation.imputation.alra import Alra
from scpalm.training.evaluation.imputation.diffusion import Diffusion
from scpalm.training.evaluation.imputation.imputers import CorpusMean, Imputer, SimpleImputers, Values
from scpalm.training.evaluation.imputation.masking import mask_positive
from scpalm.training.evaluation.imputation.model_imputer import ModelImputer
from scpalm.training.evaluation.imputation.zinb_autoencoder import ZinbAutoencoder
from scpalm.training.metrics.clustering import score_embedding
from scpalm.training.metrics.rows import Row

MIN_CELLS_OF_A_GENE = 3
# Correlations over fewer masked entries are noise.
MIN_ENTRIES = 10
# Dense values of one method: 4 GB of float32 at the limit, several times that while one is scored.
MAX_VALUES = 300_000_000
COMPONENTS = 50
DETECTED = "_detected"
# Values that are equal for all genes or all cells have no clusters.
_NO_CLUSTERS = ("cell_mean", "gene_mean", "gene_mean_corpus")
# Lower bound of a rate: without it, a count of 1 at an imputed zero would cost infinity.
_SMALLEST_RATE = 1e-6


@dataclass(frozen=True)
class Named:
    """One line of the table: a method of an imputer, unchanged or given that the entry is detected."""

    name: str
    imputer: Imputer
    method: str
    detected: bool


def lines(imputers: Sequence[Imputer]) -> list[Named]:
    """Every method unchanged and given that an entry is detected; the model's latter is called ``scpalm``."""
    out: list[Named] = []
    for imputer in imputers:
        for method in imputer.methods:
            lifted = "scpalm" if method == "scpalm_mean" else method + DETECTED
            entries = [Named(method, imputer, method, detected=False)]
            if method not in ("none", "cell_mean"):
                entries.append(Named(lifted, imputer, method, detected=True))
            out += reversed(entries) if method == "scpalm_mean" else entries
    return out


@dataclass(frozen=True, eq=False)
class ImputationOptions:
    """What to score.

    Attributes:
        corpus_means: ``[G]`` mean of each gene over the training corpus, for ``gene_mean_corpus``; None leaves it out.
        methods: names of lines; None: all. seeds: of masks and of methods. clusters: cluster the imputed values too.
    """

    corpus_means: NDArray[np.float32] | None = None
    methods: Sequence[str] | None = None
    seeds: Sequence[int] = (0, 1, 2)
    clusters: bool = True


_DEFAULTS = ImputationOptions()


def compare_imputation(
    datasets: Sequence[Dataset],
    bundle: Bundle,
    options: ImputationOptions = ImputationOptions(),
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``dataset, method, seed, zero_shot`` and metrics, one row per data set, method and seed.

    Genes are those that the model knows and that 3 cells express.

    - ``rmse, mae``: over the masked entries, log1p CP10K.
    - ``gene_pearson, cell_pearson``: mean correlation over genes and cells with 10 masked entries.
    - ``poisson_deviance``: mean over all entries of the tenth of counts that thinning held back. Only for means, scaled
      to the cell's total.
    - ``ari, nmi, knn_accuracy``: of 50 components of the imputed values (``none``: before imputation).

    Raises:
        InputError: values that are not counts, or too many values for memory. ValueError: an unknown method.
    """
    model, methods = ModelImputer(bundle), options.methods
    rows: list[Row] = []
    for dataset in datasets:
        require_counts(dataset.matrix, dataset.name)
        matrix = _common_genes(dataset, model)
        columns = model.known(matrix)
        imputers: list[Imputer] = [model, SimpleImputers()]
        if options.corpus_means is not None:
            imputers.append(CorpusMean(options.corpus_means, columns))
        imputers += [Diffusion(), Alra(), ZinbAutoencoder()]
        known = lines(imputers)
        chosen = [line for line in known if methods is None or line.name in methods]
        unknown = sorted(set(methods or ()) - {line.name for line in known})
        if unknown:
            raise ValueError(f"Unknown method '{unknown[0]}': choose one of {', '.join(line.name for line in known)}.")
        for seed in options.seeds:
            rows += _one_seed(dataset, matrix, chosen, seed, progress, clusters=options.clusters)
    order = {line.name: i for i, line in enumerate(known)} if datasets else {}
    place = {dataset.name: i for i, dataset in enumerate(datasets)}
    return sorted(rows, key=lambda row: (place[str(row["dataset"])], order[str(row["method"])], int(row["seed"])))


def _common_genes(dataset: Dataset, model: ModelImputer) -> CellMatrix:
    shown = np.bincount(dataset.matrix.indices, minlength=dataset.matrix.num_genes)
    columns = np.flatnonzero((model.known(dataset.matrix) >= 0) & (shown >= MIN_CELLS_OF_A_GENE))
    size = len(columns) * dataset.matrix.num_cells
    if size > MAX_VALUES:
        raise InputError(
            "too-many-cells",
            f"{dataset.name} has {dataset.matrix.num_cells:,} cells and {len(columns):,} genes: "
            f"the baselines hold all of them in memory, and the limit is {MAX_VALUES:,} values.",
            hint=f"Evaluate on a sample of {MAX_VALUES // max(len(columns), 1):,} cells.",
        )
    matrix = select_genes(dataset.matrix, columns)
    # Some names are known only if another column is present, so selecting columns can make others unknown.
    while len(unknown := np.flatnonzero(model.known(matrix) < 0)):
        matrix = select_genes(matrix, np.setdiff1d(np.arange(matrix.num_genes), unknown))
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    if len(empty):
        cell = str(matrix.cells[empty[0]])
        raise InputError(
            "empty-cell",
            f"{dataset.name}: cell '{cell}' expresses no gene that the model knows.",
            hint="Remove it.",
            cell=cell,
        )
    return matrix


def _one_seed(
    dataset: Dataset,
    matrix: CellMatrix,
    chosen: Sequence[Named],
    seed: int,
    progress: Callable[[str], None],
    *,
    clusters: bool,
) -> Iterator[Row]:
    masked, thinned = mask_positive(matrix, seed=seed), thin(matrix, seed=seed)
    totals = masked.matrix.row_totals()
    done: dict[str, Row] = {}
    for line in _by_method(chosen):
        progress(f"{dataset.name}, seed {seed}: {line[0].method}")
        values = line[0].imputer.impute(line[0].method, masked.matrix, seed)
        guess = values[masked.cell, masked.gene].astype(np.float64)
        for named in line:
            own = given_detected(guess, totals[masked.cell]) if named.detected else guess
            row: Row = {"task": "imputation", "dataset": dataset.name, "method": named.name, "seed": seed}
            row |= masked_scores(masked.truth, own, masked.cell, masked.gene)
            if not named.detected:
                thin_values = named.imputer.impute(named.method, thinned.matrix, seed)
                row["poisson_deviance"] = poisson_deviance(thin_values, thinned)
                del thin_values
                if clusters and named.method not in _NO_CLUSTERS:
                    score = score_embedding(components(values, COMPONENTS), dataset.labels, [seed])[0]
                    row |= {key: score[key] for key in ("ari", "nmi", "knn_accuracy")}
            row["zero_shot"] = named.imputer.zero_shot(named.method, dataset.name)
            row |= {"cells": matrix.num_cells, "genes": matrix.num_genes, "entries": len(masked.truth)}
            done[named.name] = row
        del values
    yield from done.values()


def _by_method(chosen: Sequence[Named]) -> list[list[Named]]:
    groups: dict[tuple[int, str], list[Named]] = {}
    for line in chosen:
        groups.setdefault((id(line.imputer), line.method), []).append(line)
    return list(groups.values())


def masked_scores(
    truth: NDArray[np.float64], guess: NDArray[np.float64], cell: NDArray[np.int64], gene: NDArray[np.int64]
) -> dict[str, str | int | float | bool]:
    """``rmse, mae`` of ``guess [M]``, and mean Pearson correlations within genes and within cells.

    A guess that is constant within a gene (or cell) has correlation 0.
    """
    error = guess - truth
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "gene_pearson": mean_correlation(truth, guess, gene),
        "cell_pearson": mean_correlation(truth, guess, cell),
    }


def mean_correlation(a: NDArray[np.float64], b: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    """Mean Pearson's r over groups with at least 10 entries and varying ``a``; 0 if there is no such group."""
    count = np.bincount(group).astype(np.float64)
    per = np.maximum(count, 1)
    a = a - (np.bincount(group, a) / per)[group]
    b = b - (np.bincount(group, b) / per)[group]
    ab, aa, bb = (np.bincount(group, product) for product in (a * b, a * a, b * b))
    eligible = (count >= MIN_ENTRIES) & (aa > 1e-9 * per)
    if not eligible.any():
        return 0.0
    fit = eligible & (bb > 1e-9 * per)
    r = np.where(fit, ab / np.sqrt(np.where(fit, aa * bb, 1.0)), 0.0)
    return float(r[eligible].mean())


def poisson_deviance(values: Values, thinned: Thinned) -> float:
    """Mean over all cells and genes of ``2 (y log(y / mu) - y + mu)`` for the counts ``y`` that were held out.

    ``mu`` are the linear values of ``values [cells, genes]``, scaled to each cell's expected number of held-out counts
    (a ninth of those kept).
    """
    kept = np.add.reduceat(thinned.matrix.data.astype(np.float64), thinned.matrix.indptr[:-1])
    total = 0.0
    for start in range(0, len(values), 256):
        rate = np.maximum(np.expm1(values[start : start + 256].astype(np.float64)), 0.0)
        rate += _SMALLEST_RATE
        rate *= (kept[start : start + 256] / 9 / rate.sum(axis=1))[:, None]
        y: sparse.coo_matrix = thinned.held_out[start : start + 256].tocoo()
        mu = rate[y.row, y.col]
        total += float(rate.sum() - y.data.sum(dtype=np.float64) + (y.data * np.log(y.data / mu)).sum(dtype=np.float64))
    return 2.0 * total / values.size
