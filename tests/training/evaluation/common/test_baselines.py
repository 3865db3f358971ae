from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common import baselines
from scpalm.training.evaluation.common import principal_components as components
from scpalm.training.evaluation.common.baselines import Baselines, log_normalized, variable_genes
from scpalm.training.evaluation.common.principal_components import principal_components


def counts(cells: int = 60, genes: int = 90, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rates = generator.gamma(0.3, 4.0, size=(3, genes))[generator.integers(3, size=cells)]
    table = generator.poisson(rates).astype(np.float32)
    table[:, 0] = 0  # a gene that no cell expresses
    table[:, 1] = 1  # and one that every cell does
    return table


def matrix_of(table: np.ndarray) -> CellMatrix:
    rows = sparse.csr_matrix(table)
    return CellMatrix(
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.int32),
        rows.data.astype(np.float32),
        [f"gene {i}" for i in range(table.shape[1])],
        [f"cell {i}" for i in range(table.shape[0])],
    )


def test_log_normalized_is_log1p_of_ten_thousand_parts() -> None:
    table = counts()
    expected = np.log1p(table / table.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(log_normalized(matrix_of(table)).toarray(), expected, rtol=1e-6)


def test_an_empty_cell_is_named() -> None:
    table = counts()
    table[7] = 0
    with pytest.raises(InputError, match="'cell 7'"):
        Baselines().embed("pca50", matrix_of(table))


def test_principal_components_are_those_of_the_dense_centred_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_normalized(matrix_of(counts()))
    expected = PCA(20, svd_solver="full").fit_transform(log.toarray())
    by_products = principal_components(log, 20)
    np.testing.assert_allclose(np.abs(by_products), np.abs(expected), atol=1e-8)
    monkeypatch.setattr(components, "_CELLS_BY_PRODUCTS", 0)
    np.testing.assert_allclose(principal_components(log, 20), by_products, atol=1e-8)


def test_pca256_is_capped_by_the_cells_and_pca50_is_its_beginning() -> None:
    source, matrix = Baselines(), matrix_of(counts())
    wide, narrow = source.embed("pca256", matrix), source.embed("pca50", matrix)
    assert wide.shape == (60, 59)
    assert narrow.shape == (60, 50)
    np.testing.assert_array_equal(wide[:, :50], narrow)


def test_a_second_file_does_not_reuse_the_components_of_the_first() -> None:
    source = Baselines()
    first, second = matrix_of(counts(seed=1)), matrix_of(counts(seed=2))
    source.embed("pca50", first)
    np.testing.assert_array_equal(source.embed("pca50", second), Baselines().embed("pca50", second))
    assert not np.array_equal(source.embed("pca50", second), source.embed("pca50", first))


def test_variable_genes_agree_with_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy", reason="scanpy is the oracle of the flavour: install the extra [dev]")
    anndata = pytest.importorskip("anndata")
    log = log_normalized(matrix_of(counts(200, 600)))
    theirs = anndata.AnnData(log.copy())
    scanpy.pp.highly_variable_genes(theirs, n_top_genes=100, flavor="seurat")
    np.testing.assert_array_equal(variable_genes(log, 100), np.flatnonzero(theirs.var["highly_variable"]))


def test_hvg2000_takes_the_genes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = matrix_of(counts())
    np.testing.assert_array_equal(Baselines().embed("hvg2000", matrix), log_normalized(matrix).toarray())
    monkeypatch.setattr(baselines, "NUM_VARIABLE_GENES", 30)
    assert Baselines().embed("hvg2000", matrix).shape == (60, 30)


def test_baselines_are_never_zero_shot() -> None:
    assert not any(Baselines().zero_shot(method, "pbmc3k") for method in Baselines().methods)


def test_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="hvg2000, pca50, pca256"):
        Baselines().embed("pca", matrix_of(counts()))


def test_too_few_cells_for_components() -> None:
    with pytest.raises(InputError, match="2 cells"):
        principal_components(log_normalized(matrix_of(counts(2))), 50)
