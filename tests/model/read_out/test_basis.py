"""The correction for measured genes is exact, and does not depend on the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import GeneSet
from scpalm.model.read_out.exact import exact_gram, inverse
from scpalm.model.sessions.base import network_config, read_basis
from tests.model.network.test_read_out import random_basis


def test_the_gram_matrix_of_missing_genes_is_subtracted_exactly() -> None:
    basis = random_basis()
    measured = np.arange(len(basis.mean)) % 5 != 0
    directly = exact_gram(basis.components, np.flatnonzero(measured))
    np.testing.assert_array_equal(basis._gram(measured), directly)


def test_inverse() -> None:
    x = np.random.default_rng(0).normal(size=(40, 30))
    matrix = x.T @ x + np.eye(30)
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(30), atol=1e-9)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    bundle = Bundle.load()
    basis = read_basis(bundle, network_config(bundle))
    gene_set = GeneSet(np.random.default_rng(0).random(len(basis.mean)) < 0.7)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append(basis.correction(gene_set))
    for other in found[1:]:
        np.testing.assert_array_equal(other.center, found[0].center)
        np.testing.assert_array_equal(other.solve, found[0].solve)


def test_tensors_are_read_back_or_refused() -> None:
    basis = random_basis()
    read = type(basis).from_tensors(basis.tensors())
    np.testing.assert_array_equal(read.components, basis.components)
    assert (read.ridge, read.value_scale) == (basis.ridge, basis.value_scale)
    with pytest.raises(ValueError, match="do not fit together"):
        type(basis).from_tensors(basis.tensors() | {"basis.scale": basis.scale[:-1]})


def test_a_file_without_a_known_gene_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the model's genes"):
        random_basis().correction(GeneSet(np.zeros(50, bool)))
