from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from scpalm.model.neighbors import nearest
from scpalm.training.metrics import agreement
from scpalm.training.metrics.labels import encode_labels
from tests.training.evaluation.blobs import blobs


def test_ari_and_nmi_of_known_partitions() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    assert agreement.ari(truth, np.array([5, 5, 5, 2, 2, 2])) == 1
    assert agreement.nmi(truth, np.array([5, 5, 5, 2, 2, 2])) == pytest.approx(1)
    assert agreement.ari(truth, np.zeros(6, dtype=int)) == 0
    assert agreement.nmi(truth, np.zeros(6, dtype=int)) == 0
    # One label in two clusters, the other whole: H(truth) = ln 2, H(clusters) = 1.0114, mutual information = ln 2.
    clusters = np.array([0, 0, 2, 1, 1, 1])
    entropy = -(2 / 6 * np.log(2 / 6) + 1 / 6 * np.log(1 / 6) + 3 / 6 * np.log(3 / 6))
    assert agreement.nmi(truth, clusters) == pytest.approx(np.log(2) / ((np.log(2) + entropy) / 2))


def test_silhouette_of_two_pairs() -> None:
    array = np.array([[0.0], [1.0], [10.0], [11.0]])
    # Each cell: own group at 1; the other at 10.5 (outer cells) or 9.5 (inner cells).
    expected = (2 * (10.5 - 1) / 10.5 + 2 * (9.5 - 1) / 9.5) / 4
    assert agreement.silhouette(array, np.array([0, 0, 1, 1])) == pytest.approx(expected)


@pytest.mark.parametrize("candidates", [16, 60, 179])
def test_knn_score_agrees_with_scikit_learn(candidates: int) -> None:
    array, labels = blobs(spread=0.15)
    truth = encode_labels(labels).codes
    predicted = np.empty_like(truth)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(array, truth):
        model = KNeighborsClassifier(15, algorithm="brute").fit(array[train], truth[train])
        predicted[test] = model.predict(array[test])
    score = agreement.knn_score(array, truth, nearest(array, candidates), seed=3)
    assert 0.4 < score.accuracy < 0.99
    assert score.accuracy == pytest.approx((predicted == truth).mean())


def test_unlabelled_cells_neither_vote_nor_count() -> None:
    array, labels = blobs((40, 30))
    # Most of the 45 nearest cells of each cell are unlabelled copies.
    crowd = np.concatenate([array] + [array + 1e-3] * 3)
    crowded = np.concatenate([labels, np.full(3 * len(labels), None, dtype=object)])
    alone = agreement.knn_score(array, encode_labels(labels).codes, nearest(array, 60), seed=0)
    among = agreement.knn_score(crowd, encode_labels(crowded).codes, nearest(crowd, 60), seed=0)
    assert alone == among
    assert alone.accuracy == 1


def test_macro_f1_counts_a_rare_label_as_much_as_a_frequent_one() -> None:
    array, labels = blobs((95, 5))
    array[labels == "type 1"] = array[labels == "type 0"][:5]  # the rare type overlaps with the frequent one
    score = agreement.knn_score(array, encode_labels(labels).codes, nearest(array, 60), seed=0)
    assert score.accuracy == 0.95
    assert score.macro_f1 == pytest.approx((2 * 0.95 / 1.95 + 0) / 2)


def test_a_label_with_fewer_cells_than_folds_is_scored_without_a_warning() -> None:
    array, labels = blobs((30, 20, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = agreement.knn_score(array, encode_labels(labels).codes, nearest(array, 45), seed=0)
    assert score.accuracy == pytest.approx(50 / 52)


def test_leave_one_out_agrees_with_scikit_learn() -> None:
    array, labels = blobs((30, 20, 10), spread=0.15)
    truth = encode_labels(labels).codes
    predicted = [
        KNeighborsClassifier(5).fit(np.delete(array, i, axis=0), np.delete(truth, i)).predict(array[i : i + 1])[0]
        for i in range(len(array))
    ]
    assert agreement.leave_one_out_accuracy(array, truth) == float((np.array(predicted) == truth).mean())


def test_transfer_agrees_with_scikit_learn() -> None:
    array, labels = blobs((40, 30, 20), spread=0.15)
    truth = encode_labels(labels).codes.copy()
    truth[:5] = -1
    batch = np.arange(len(array)) % 3
    truth[batch == 2] = np.where(truth[batch == 2] == 1, 3, truth[batch == 2])  # a label of batch 2 alone
    scores = list(agreement.transfer_scores(array, truth, batch))
    assert [score.batch for score in scores] == [0, 1, 2]
    for score in scores:
        voters = (truth >= 0) & (batch != score.batch)
        own = (truth >= 0) & (batch == score.batch)
        asked = own & np.isin(truth, truth[voters])
        predicted = KNeighborsClassifier(10).fit(array[voters], truth[voters]).predict(array[asked])
        assert score.accuracy == float((predicted == truth[asked]).mean())
        assert (score.cells, score.unseen_cells) == (int(asked.sum()), int(own.sum() - asked.sum()))
    assert scores[2].unseen_cells == int((truth == 3).sum()) > 0


def test_batches_without_a_common_label_have_no_score() -> None:
    array, labels = blobs((20, 20))
    truth = encode_labels(labels).codes
    assert not list(agreement.transfer_scores(array, truth, truth))
