"""The components of a small corpus against a dense decomposition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scpalm.training.corpus.matrix import corpus_matrix
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.stages.basis import BasisOptions, fit_basis
from tests.training.tiny import SIZES


def dense(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted centred values ``[cells, G]`` before gene weights, gene means and gene sds, the literal way."""
    sampler = Sampler(corpus, power=0.5, seed=0, balance_by="dataset")
    rows, weight = sampler.rows, sampler.probability
    y = np.log1p(SIZES.value_scale * np.expm1(corpus_matrix(corpus, rows).toarray().astype(np.float64)))
    measured = corpus.measured[corpus.obs["file"].to_numpy()[rows]]
    total = weight @ measured
    mean = np.where(total > 0, weight @ (y * measured) / np.maximum(total, 1e-12), 0)
    variance = np.where(total > 0, weight @ (y**2 * measured) / np.maximum(total, 1e-12), 0) - mean**2
    return np.sqrt(weight)[:, None] * (y - mean) * measured, mean, np.sqrt(np.maximum(variance, 0))


def test_components_equal_those_of_the_dense_matrix(corpus: Corpus) -> None:
    options = BasisOptions(gene_power=0.0, exponent=0.0)
    basis = fit_basis(corpus, SIZES, seed=0, simulated_share=0.35, options=options)
    centred, mean, _ = dense(corpus)
    wanted = np.linalg.svd(centred, full_matrices=False)[2][: SIZES.components].T
    found = basis.components * basis.scale.astype(np.float64)
    np.testing.assert_allclose(basis.mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.abs((found * wanted).sum(axis=0))[:6], 1, atol=1e-3)


def test_genes_are_divided_by_a_power_of_their_sd(corpus: Corpus) -> None:
    basis = fit_basis(corpus, SIZES, seed=0, simulated_share=0.35)
    _, _, sd = dense(corpus)
    high = sd > np.quantile(sd[sd > 0], 0.3)
    np.testing.assert_allclose(basis.gene_weight[high], sd[high] ** -0.25, rtol=1e-3)
    lengths = np.linalg.norm(basis.components * basis.scale.astype(np.float64), axis=0)
    assert lengths[0] == pytest.approx(1, abs=1e-3) and (np.diff(lengths) < 1e-6).all()


def test_two_fits_are_equal_and_depend_on_the_seed_in_the_last_digits_only(corpus: Corpus) -> None:
    one, two, other = (fit_basis(corpus, SIZES, seed=seed, simulated_share=0.35) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.components, two.components)
    assert np.abs(one.components[:, :4].astype(int) - other.components[:, :4]).max() < 300  # of 32,767


def test_a_corpus_with_fewer_genes_than_components_is_padded(corpus: Corpus) -> None:
    wide = replace(SIZES, components=corpus.num_genes + 20)
    basis = fit_basis(corpus, wide, seed=0, simulated_share=0.35)
    assert basis.components.shape == (corpus.num_genes, corpus.num_genes + 20)
    assert not basis.components[:, corpus.num_genes :].any()


def test_a_large_corpus_is_represented_by_a_sample(corpus: Corpus) -> None:
    basis = fit_basis(corpus, SIZES, seed=0, simulated_share=0.35, options=BasisOptions(max_cells=150))
    assert np.isfinite(basis.mean).all() and basis.components.any()
