"""Metrics of how well an array of cells agrees with labels, one function each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scpalm.model.neighbors import Neighbors, NeighborSearch, nearest


def ari(truth: NDArray[np.integer], clusters: NDArray[np.integer]) -> float:
    """Adjusted Rand index of two partitions ``[cells]``: 1 if equal, 0 as by chance, possibly negative."""
    return float(sklearn_metrics.adjusted_rand_score(truth, clusters))


def nmi(truth: NDArray[np.integer], clusters: NDArray[np.integer]) -> float:
    """Normalised mutual information of two partitions ``[cells]``, arithmetic mean of entropies, in [0, 1]."""
    return float(sklearn_metrics.normalized_mutual_info_score(truth, clusters, average_method="arithmetic"))


def silhouette(array: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Mean silhouette of labels ``[cells]`` in ``array [cells, width]``, Euclidean, unscaled, in [-1, 1]."""
    wide = np.asarray(array, dtype=np.float64)
    # Centred, so that the |a|^2 - 2ab + |b|^2 of scikit-learn loses fewer digits.
    width = sklearn_metrics.silhouette_score(wide - wide.mean(axis=0), truth, metric="euclidean")
    # Digits below 1e-9 depend on the order of sums.
    return round(float(width), 9)


@dataclass(frozen=True)
class KnnScore:
    """Out-of-fold prediction of the labels from the nearest cells.

    Attributes:
        accuracy: share of correct predictions. macro_f1: F1 averaged over labels, rare ones with equal weight.
    """

    accuracy: float
    macro_f1: float


def knn_score(
    array: NDArray[np.floating],
    truth: NDArray[np.integer],
    neighbors: Neighbors,
    *,
    seed: int,
    k: int = 15,
    folds: int = 5,
) -> KnnScore:
    """Predict each cell once, by majority vote of the ``k`` nearest labelled cells of the other folds.

    Args:
        array: ``[cells, width]``.
        truth: ``[cells]`` label codes from 0; unlabelled cells have -1, and neither vote nor count.
        neighbors: more than ``k`` nearest cells of ``array``, so that most votes need no new search. Cells with too few
            voters among them are searched again: the result does not depend on the number given.
        seed: of the stratified, shuffled folds.

    A tied vote goes to the lower code, as in scikit-learn's KNeighborsClassifier.
    """
    fold = _folds(truth, folds, seed)
    own = np.flatnonzero(truth >= 0)
    may_vote = (truth[neighbors.index] >= 0) & (fold[neighbors.index] != fold[:, None])
    enough = may_vote.sum(axis=1) >= k
    num_labels = int(truth.max()) + 1
    votes = np.zeros((len(truth), num_labels), dtype=np.int64)

    voter = may_vote & (np.cumsum(may_vote, axis=1) <= k)
    rows, columns = np.nonzero(voter & (enough & (truth >= 0))[:, None])
    np.add.at(votes, (rows, truth[neighbors.index[rows, columns]]), 1)

    short = own[~enough[own]]
    if len(short):
        search = NeighborSearch(array)
        for part in range(folds):
            asked = short[fold[short] == part]
            voters = own[fold[own] != part]
            found = search.among(asked, voters, min(k, len(voters))).index
            np.add.at(votes, (np.repeat(asked, found.shape[1]), truth[found].ravel()), 1)

    predicted = votes[own].argmax(axis=1)
    f1 = sklearn_metrics.f1_score(truth[own], predicted, average="macro", labels=np.arange(num_labels), zero_division=0)
    return KnnScore(
        accuracy=float(sklearn_metrics.accuracy_score(truth[own], predicted)),
        macro_f1=float(f1),
    )


def probe_score(array: NDArray[np.floating], truth: NDArray[np.integer], *, seed: int, folds: int = 5) -> KnnScore:
    """Out-of-fold prediction of labels ``[cells]`` by logistic regression on ``array [cells, width]``, standardised.

    Every cell has a label. Measures whether the information is there at all, not whether neighbours share it.
    """
    fold = _folds(truth, folds, seed)
    predicted = np.empty(len(truth), dtype=np.int64)
    for part in np.unique(fold):
        test = fold == part
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        with warnings.catch_warnings():
            # The accuracy converges long before the weights do.
            warnings.simplefilter("ignore", ConvergenceWarning)
            predicted[test] = model.fit(array[~test], truth[~test]).predict(array[test])
    f1 = sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    return KnnScore(accuracy=float((predicted == truth).mean()), macro_f1=float(f1))


def leave_one_out_accuracy(array: NDArray[np.floating], truth: NDArray[np.integer], *, k: int = 5) -> float:
    """Share of cells whose label is the majority among the ``k`` nearest other cells; a tie goes to the lower code.

    Args:
        array: ``[cells, width]``, more than ``k`` cells.
        truth: ``[cells]`` label codes from 0; every cell has one. A label with a single cell cannot be predicted.
    """
    return float((_majority(truth[nearest(array, k).index]) == truth).mean())


@dataclass(frozen=True)
class TransferScore:
    """Prediction of the labels of one batch from all others.

    Attributes:
        batch: its code.
        accuracy: share of correct predictions.
        cells: number of cells that were predicted.
        unseen_cells: labelled cells that were left out because no other batch has their label.
    """

    batch: int
    accuracy: float
    cells: int
    unseen_cells: int


def transfer_scores(
    array: NDArray[np.floating], truth: NDArray[np.integer], batch: NDArray[np.integer], *, k: int = 10
) -> Iterator[TransferScore]:
    """Predict the cells of each batch by majority vote of the ``k`` nearest labelled cells of all other batches.

    Args:
        array: ``[cells, width]``.
        truth: ``[cells]`` label codes from 0; unlabelled cells have -1, and neither vote nor count.
        batch: ``[cells]`` batch codes.

    Batches in which no cell has a label of another batch are left out. A tied vote goes to the lower code.
    """
    search = NeighborSearch(array)
    for code in np.unique(batch):
        voters = np.flatnonzero((truth >= 0) & (batch != code))
        own = np.flatnonzero((truth >= 0) & (batch == code))
        asked = own[np.isin(truth[own], truth[voters])]
        if not len(asked):
            continue
        found = search.among(asked, voters, min(k, len(voters))).index
        accuracy = float((_majority(truth[found]) == truth[asked]).mean())
        yield TransferScore(int(code), accuracy, len(asked), len(own) - len(asked))


def _majority(votes: NDArray[np.integer]) -> NDArray[np.int64]:
    """``[cells, k]`` codes -> ``[cells]`` the most frequent code of each row, the lowest of tied ones."""
    counts = np.zeros((len(votes), int(votes.max()) + 1), dtype=np.int64)
    np.add.at(counts, (np.arange(len(votes))[:, None], votes), 1)
    return counts.argmax(axis=1)


def _folds(truth: NDArray[np.integer], folds: int, seed: int) -> NDArray[np.int64]:
    """``[cells]`` fold of each labelled cell, -1 for the others."""
    own = np.flatnonzero(truth >= 0)
    fold = np.full(len(truth), -1, dtype=np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label with fewer cells than folds is missing from some folds; its cells are still scored.
        warnings.filterwarnings("ignore", message="The least populated class")
        for part, (_, test) in enumerate(splitter.split(own, truth[own])):
            fold[own[test]] = part
    return fold
