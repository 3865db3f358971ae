from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.training.evaluation.common.dataset import Dataset
from scpalm.training.evaluation.common.thinning import Thinned
from scpalm.training.evaluation.imputation import compare
from scpalm.training.evaluation.imputation.compare import (
    ImputationOptions,
    compare_imputation,
    masked_scores,
    mean_correlation,
    poisson_deviance,
)
from scpalm.training.evaluation.imputation.decoder import DecodedCells
from scpalm.training.metrics.labels import encode_labels
from tests.training.bundles import Exported
from tests.training.evaluation.cells import matrix_of
from tests.training.tiny import tiny_counts


def cells(num: int = 60) -> Dataset:
    counts = tiny_counts(num, seed=5)
    counts[:, -1] = 1
    genes = [f"GENE{i}" for i in range(119)] + ["NOT-A-GENE"]
    return Dataset("tiny", matrix_of(counts, genes), encode_labels(["a", "b", "c"] * (num // 3)))


def test_rows_of_every_method(tiny_export: Exported) -> None:
    bundle = Bundle.load(tiny_export.bundle)
    rows = compare_imputation([cells()], bundle, ImputationOptions(corpus_means=np.ones(120, np.float32), seeds=[0]))
    by_method = {str(row["method"]): row for row in rows}
    assert list(by_method)[:4] == ["scpalm", "scpalm_mean", "scpalm_neighbours", "scpalm_neighbours_detected"]
    assert {"cell_mean", "gene_mean", "gene_mean_corpus", "knn", "diffusion", "alra", "zinb_autoencoder"} < set(
        by_method
    )
    assert by_method["scpalm"]["zero_shot"] is True and by_method["knn"]["zero_shot"] is False
    assert by_method["scpalm_neighbours"]["zero_shot"] is False
    # A gene that the model does not know is not scored.
    assert {row["genes"] for row in rows} <= set(range(100, 120))
    for row in rows:
        assert all(np.isfinite(float(row[key])) for key in ("rmse", "mae", "gene_pearson", "cell_pearson"))
    for method in ("none", "scpalm_mean", "knn", "alra"):
        assert {"poisson_deviance", "ari", "knn_accuracy"} <= set(by_method[method])
    assert "poisson_deviance" not in by_method["scpalm"]
    assert float(by_method["knn"]["rmse"]) < float(by_method["none"]["rmse"])


def test_the_same_seed_gives_the_same_digits(tiny_export: Exported) -> None:
    bundle = Bundle.load(tiny_export.bundle)
    first, again = (
        compare_imputation(
            [cells()], bundle, ImputationOptions(methods=["scpalm", "knn", "alra"], seeds=[1], clusters=False)
        )
        for _ in range(2)
    )
    assert first == again


def test_decoding_does_not_depend_on_other_cells(tiny_export: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = DecodedCells(Bundle.load(tiny_export.bundle))
    matrix = matrix_of(tiny_counts(10, seed=1))
    ((_, h, o),) = decoded.blocks(matrix)
    monkeypatch.setattr("scpalm.training.evaluation.imputation.decoder.BATCH", 3)
    parts = list(decoded.blocks(matrix))
    assert [place.start for place, _, _ in parts] == [0, 3, 6, 9]
    np.testing.assert_allclose(np.concatenate([part for _, part, _ in parts]), h, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([part for _, _, part in parts]), o, atol=1e-5)
    assert o.shape == (10, 120) and (o >= 0).all()


def test_data_that_cannot_be_scored_is_an_error_with_a_fix(
    tiny_export: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(tiny_export.bundle)
    with pytest.raises(ValueError, match="Unknown method 'magic'"):
        compare_imputation([cells()], bundle, ImputationOptions(methods=["magic"]))
    matrix = matrix_of(np.full((20, 120), 0.5))
    with pytest.raises(InputError, match="raw counts"):
        compare_imputation([Dataset("logs", matrix, encode_labels(["a", "b"] * 10))], bundle)
    monkeypatch.setattr(compare, "MAX_VALUES", 1000)
    with pytest.raises(InputError, match="sample of 8 cells"):
        compare_imputation([cells()], bundle)


def test_scores_of_a_guess() -> None:
    truth, cell = np.arange(20.0), np.repeat([0, 1], 10)
    scores = masked_scores(truth, truth + 2.0, cell, np.zeros(20, int))
    assert scores == {
        "rmse": 2.0,
        "mae": 2.0,
        "gene_pearson": pytest.approx(1.0),
        "cell_pearson": pytest.approx(1.0),
    }
    assert mean_correlation(truth, np.ones(20), cell) == 0.0
    assert mean_correlation(truth, -truth, cell) == pytest.approx(-1.0)
    assert mean_correlation(truth[:5], truth[:5], cell[:5]) == 0.0


def test_the_deviance_is_least_for_the_rates_behind_the_counts() -> None:
    rng = np.random.default_rng(0)
    rate = rng.gamma(1.0, 2.0, (40, 30))
    kept = rng.poisson(rate * 9).astype(float)
    thinned = Thinned(matrix_of(kept), sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    right, wrong = np.log1p(rate), np.log1p(np.broadcast_to(rate.mean(axis=0), rate.shape))
    assert poisson_deviance(right.astype(np.float32), thinned) < poisson_deviance(wrong.astype(np.float32), thinned)
    y, mu = np.asarray(thinned.held_out.todense()), rate / rate.sum(axis=1, keepdims=True)
    mu *= kept.sum(axis=1, keepdims=True) / 9
    literal = 2 * np.mean(np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mu), 0) - y + mu)
    assert poisson_deviance(right.astype(np.float32), thinned) == pytest.approx(literal, rel=1e-4)
