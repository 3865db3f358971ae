from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import nbinom
from sklearn.decomposition import PCA

from scpalm.training.evaluation.common.baselines import log_normalized
from scpalm.training.evaluation.common.detected import given_detected
from scpalm.training.evaluation.common.principal_components import components
from scpalm.training.evaluation.imputation.alra import Alra, choose_rank
from scpalm.training.evaluation.imputation.diffusion import Diffusion, diffusion_operator
from scpalm.training.evaluation.imputation.imputers import CorpusMean, SimpleImputers
from scpalm.training.evaluation.imputation.masking import mask_positive
from scpalm.training.evaluation.imputation.zinb_autoencoder import ZinbAutoencoder, zinb_loss
from tests.training.evaluation.cells import dense, low_rank_counts, matrix_of


def test_simple_methods_match_their_definitions() -> None:
    matrix = matrix_of(low_rank_counts()[0])
    log = np.asarray(log_normalized(matrix).todense())
    simple = SimpleImputers()
    np.testing.assert_allclose(simple.impute("none", matrix, 0), log, rtol=1e-6)
    expected = [row[row > 0].mean() for row in log]
    np.testing.assert_allclose(simple.impute("cell_mean", matrix, 0)[:, 7], expected, rtol=1e-6)
    np.testing.assert_allclose(simple.impute("gene_mean", matrix, 0)[3], log.mean(axis=0), rtol=1e-5)
    assert not simple.zero_shot("knn", "x") and simple.zero_shot("cell_mean", "x")
    with pytest.raises(ValueError, match="Unknown method"):
        simple.impute("guess", matrix, 0)


def test_the_mean_of_the_corpus_follows_the_columns_of_the_file() -> None:
    imputer = CorpusMean(np.array([1.0, 2.0, 3.0], np.float32), np.array([2, 0]))
    np.testing.assert_array_equal(imputer.impute("gene_mean_corpus", matrix_of(np.ones((2, 2))), 0), [[3, 1], [3, 1]])


def test_components_are_those_of_sklearn() -> None:
    values = low_rank_counts()[0].astype(np.float32)
    ours = components(values, 5)
    other = PCA(5, svd_solver="full").fit_transform(values)
    np.testing.assert_allclose(np.abs(ours), np.abs(other), atol=1e-3)
    np.testing.assert_allclose(np.abs(components(sparse.csr_matrix(values), 5)), np.abs(other), atol=1e-3)


def test_a_detected_entry_is_a_truncated_poisson_mean() -> None:
    totals, mu = 2000.0, np.array([1e-7, 0.01, 0.5, 3.0, 400.0])
    rng = np.random.default_rng(0)
    draws = rng.poisson(0.5, 200_000)
    lifted = np.expm1(given_detected(np.log1p(1e4 * mu / totals), np.array(totals))) * totals / 1e4
    assert lifted[0] == pytest.approx(1.0)
    assert lifted[2] == pytest.approx(draws[draws > 0].mean(), rel=0.01)
    assert lifted[4] == pytest.approx(400.0)
    assert (np.diff(lifted) > 0).all()


def test_methods_that_borrow_from_other_cells_beat_the_mean_of_the_gene() -> None:
    matrix = matrix_of(low_rank_counts(240, 80)[0])
    masked = mask_positive(matrix, seed=0)
    error = {}
    network = ZinbAutoencoder(epochs=60, max_steps=400)
    for imputer in (SimpleImputers(), Diffusion(num_components=10), Alra(), network):
        for method in imputer.methods:
            values = imputer.impute(method, masked.matrix, 0)
            assert values.shape == (240, 80) and np.isfinite(values).all() and (values >= 0).all()
            error[method] = float(np.sqrt(np.mean((values[masked.cell, masked.gene] - masked.truth) ** 2)))
    for method in ("knn", "diffusion", "zinb_autoencoder"):
        assert error[method] < error["gene_mean"] < error["none"], error
    assert error["alra"] < error["none"], error


def test_the_network_gives_the_same_values_for_the_same_seed() -> None:
    matrix = matrix_of(low_rank_counts(60, 30)[0])
    first, again = (ZinbAutoencoder(epochs=2).impute("zinb_autoencoder", matrix, 4) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_likelihood_is_that_of_a_zero_inflated_negative_binomial() -> None:
    counts = torch.tensor([[0.0, 0.0, 1.0, 7.0]])
    mean, dispersion = torch.tensor([[0.5, 3.0, 2.0, 5.0]]), torch.tensor([[1.0, 2.0, 0.7, 4.0]])
    logit = torch.tensor([[-1.0, 0.3, 0.0, 2.0]])
    pi = torch.sigmoid(logit).numpy()
    r, p = dispersion.numpy(), (dispersion / (dispersion + mean)).numpy()
    likelihood = (1 - pi) * nbinom.pmf(counts.numpy(), r, p) + pi * (counts.numpy() == 0)
    assert float(zinb_loss(counts, mean, dispersion, logit)) == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


def test_alra_finds_the_rank_and_keeps_what_was_observed() -> None:
    singular = np.concatenate([[90.0, 60.0, 30.0], 5 - 0.01 * np.arange(97) - 0.001 * (np.arange(97) % 3)])
    assert choose_rank(singular) == 3
    matrix = matrix_of(low_rank_counts()[0])
    values = Alra().impute("alra", matrix, 0)
    assert (values[dense(matrix) > 0] > 0).all()


def test_the_diffusion_operator_is_a_transition_matrix() -> None:
    array = np.random.default_rng(0).normal(size=(50, 4))
    operator = diffusion_operator(array)
    np.testing.assert_allclose(np.asarray(operator.sum(axis=1)).ravel(), 1.0)
    assert (operator.diagonal() > 0).all()


@pytest.mark.skipif(importlib.util.find_spec("magic") is None, reason="magic-impute (GPL, optional) is not installed")
def test_diffusion_agrees_with_the_authors_program() -> None:
    magic = importlib.import_module("magic")

    matrix = matrix_of(low_rank_counts(200, 50)[0])
    log = np.asarray(log_normalized(matrix).todense())
    theirs = magic.MAGIC(n_pca=20, random_state=0, verbose=0).fit_transform(log)
    ours = Diffusion(num_components=20).impute("diffusion", matrix, 0)
    # Their components are randomised and projected back, so the last digits differ.
    assert np.abs(ours - theirs).mean() < 0.02 * log.std()
    assert np.corrcoef(ours.ravel(), np.asarray(theirs).ravel())[0, 1] > 0.999
