"""Annotation with the bundle's own reference, and two baselines that need no embedding and see the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from scpalm.model.annotation.bundled import reference_of
from scpalm.model.annotation.reference import UNKNOWN
from scpalm.model.bundle import Bundle
from scpalm.model.engine import open_runtime
from scpalm.model.errors import InputError
from scpalm.model.genes.prepare import Prepared, prepare
from scpalm.training.annotation.cells import CorpusCells, ReferenceOptions, labelled_cells
from scpalm.training.corpus.reader import Corpus
from scpalm.training.evaluation.common.baselines import variable_genes
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.source import trained_on
from scpalm.training.metrics.rows import Row

METHODS = ("reference", "logistic_genes", "nearest_profile")
# Genes for the two baselines, the most variable of those that the file measured.
NUM_GENES = 2000

Answers = tuple[NDArray[np.object_], NDArray[np.bool_], int]


@dataclass(frozen=True, eq=False)
class ReferenceGenes:
    """Expression of the cells that the bundle's reference was fitted to, for the baselines.

    Attributes:
        log: ``[R, G]`` log1p CP10K in the order of the vocabulary.
        cells: what they are; all have a broad type.
    """

    log: sparse.csr_matrix
    cells: CorpusCells


def reference_genes(corpus: Corpus, options: ReferenceOptions) -> ReferenceGenes:
    """The cells that `add_reference` uses, for the same corpus and options."""
    cells = labelled_cells(corpus, options.max_of_label, options.seed)
    cells = cells.select(np.flatnonzero(cells.broad != ""))
    parts = [corpus.cell(int(row)) for row in cells.rows]
    indptr = np.concatenate([[0], np.cumsum([len(values) for _, values in parts])])
    entries = (np.concatenate([values for _, values in parts]), np.concatenate([genes for genes, _ in parts]), indptr)
    return ReferenceGenes(sparse.csr_matrix(entries, shape=(len(parts), corpus.num_genes)), cells)


def compare_named_types(
    files: Sequence[Dataset],
    accepted: Mapping[str, Mapping[str, frozenset[str]]],
    bundle: Bundle,
    genes: ReferenceGenes | None = None,
    methods: Sequence[str] = METHODS,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Rows ``task, dataset, method``: accuracy at broad types by a map of labels.

    ``accuracy`` counts unknown cells as wrong, ``nearest_accuracy`` does not. ``unknown_share`` is their share among
    the scored cells, ``unknown_share_elsewhere`` that among the others, such as cell lines. The baselines call no cell
    unknown.

    Args:
        files: labelled files.
        accepted: file name -> label -> the broad types that are right; none for labels that are not scored.
        bundle: the model.
        genes: for the baselines, which are left out without it.
        methods: which to score.
        progress: called with each file and method.

    Raises:
        InputError: a file has a label that the map lacks.
    """
    rows: list[Row] = []
    for file in files:
        labels = np.array([*file.labels.names, ""], dtype=object)[file.labels.codes]
        truth = _truth(file.name, labels, accepted)
        scored = np.array([bool(right) for right in truth], bool)
        prepared = prepare(file.matrix, bundle.vocabulary)
        for method in methods:
            if method != "reference" and genes is None:
                continue
            progress(f"{file.name}: {method}")
            nearest, unknown, width = _answer(method, prepared, bundle, genes)
            right = np.array([name in types for name, types in zip(nearest, truth, strict=True)], bool)
            row: Row = {"task": "named_types", "dataset": file.name, "method": method, "seed": 0}
            if scored.any():
                row |= {
                    "accuracy": float((right & ~unknown)[scored].mean()),
                    "nearest_accuracy": float(right[scored].mean()),
                    "macro_recall": _macro_recall(labels[scored], (right & ~unknown)[scored]),
                    "unknown_share": float(unknown[scored].mean()),
                }
            if (~scored & (labels != "")).any():
                row["unknown_share_elsewhere"] = float(unknown[~scored & (labels != "")].mean())
            row |= {"cells": int(scored.sum()), "width": width, "zero_shot": file.name not in trained_on(bundle)}
            rows.append(row)
    return rows


def _truth(
    name: str, labels: NDArray[np.object_], accepted: Mapping[str, Mapping[str, frozenset[str]]]
) -> list[frozenset[str]]:
    known = accepted.get(name, {})
    missing = sorted(set(labels) - {"", *known})
    if missing:
        raise InputError(
            "unmapped-label",
            f"{name} has labels without broad types: {', '.join(missing[:5])}.",
            hint="Add them to training/cell_types/evaluation_labels.csv, or give --map 'label=broad type'.",
        )
    return [known.get(label, frozenset()) for label in labels]


def _macro_recall(labels: NDArray[np.object_], right: NDArray[np.bool_]) -> float:
    return float(np.mean([right[labels == name].mean() for name in sorted(set(labels))]))


def _answer(method: str, prepared: Prepared, bundle: Bundle, genes: ReferenceGenes | None) -> Answers:
    """Nearest label and whether it is unknown ``[B]``, and the number of features."""
    if method == "reference":
        session = open_runtime(bundle)
        found = reference_of(bundle, session.info.embedding_width).reference.annotate(
            session.encode(prepared.rows, tokens=False).embedding
        )
        return found.nearest_label, found.label == UNKNOWN, session.info.embedding_width
    assert genes is not None
    rows = prepared.rows
    shape = (len(rows), genes.log.shape[1])
    query = sparse.csr_matrix((rows.value, rows.gene_index, rows.indptr), shape=shape)
    measured = np.flatnonzero(rows.gene_sets[0].measured)
    chosen = measured[variable_genes(genes.log[:, measured].tocsr().astype(np.float64), NUM_GENES)]
    baseline = {"logistic_genes": _logistic, "nearest_profile": _nearest_profile}[method]
    nearest = baseline(genes, query, chosen)
    return nearest, np.zeros(len(nearest), bool), len(chosen)


def _logistic(genes: ReferenceGenes, query: sparse.csr_matrix, chosen: NDArray[np.int64]) -> NDArray[np.object_]:
    """Logistic regression on standardised genes, as in CellTypist (Domínguez Conde et al. 2022)."""
    scaler = StandardScaler()
    train = np.clip(scaler.fit_transform(genes.log[:, chosen].toarray().astype(np.float32)), -10, 10)
    model = LogisticRegression(C=1.0, max_iter=100).fit(train, genes.cells.broad.astype(str))
    test = np.clip(scaler.transform(query[:, chosen].toarray().astype(np.float32)), -10, 10)
    return model.predict(test).astype(object)


def _nearest_profile(genes: ReferenceGenes, query: sparse.csr_matrix, chosen: NDArray[np.int64]) -> NDArray[np.object_]:
    """The profile with the highest Spearman correlation, as in SingleR (Aran et al. 2019), without its fine-tuning.

    A profile is the mean of the cells of one label of a source.
    """
    keys = [f"{s}\0{t.label}" for s, t in zip(genes.cells.sources, genes.cells.cell_types, strict=True)]
    _, first, code = np.unique(keys, return_index=True, return_inverse=True)
    mean = sparse.csr_matrix((1 / np.bincount(code)[code], (code, np.arange(len(code)))))
    profiles = _standard_ranks(np.asarray((mean @ genes.log[:, chosen]).todense()))
    cells = _standard_ranks(query[:, chosen].toarray())
    return genes.cells.broad[first][(cells @ profiles.T).argmax(axis=1)]


def _standard_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(norm == 0, 1.0, norm)
