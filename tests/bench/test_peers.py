"""The parts of the comparison with other models whose errors the table would not show."""

from __future__ import annotations

import numpy as np
import torch

from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.shapes import synthetic_rows
from tests.bench.bench_peers import measure
from tests.bench.peers import NUM_GENES, Peer, Sizes, dense, small_models, transformer, variable_genes
from tests.gpu.kit.profile_onnx import operator_times

GENES = 3000


def few_cells() -> Rows:
    return synthetic_rows(GENES, num_cells=60, expressed=200)


def test_the_work_of_a_transformer_is_that_of_its_sizes() -> None:
    L, D, F, T = 2, 32, 48, 40
    found = transformer("small", Sizes(L, D, 4, F, T, 100))
    projections = 2 * T * (4 * D * D + 2 * D * F)
    attention = 2 * 2 * T * T * D
    assert found.flop == L * (projections + attention) + 2 * T * D  # and the map of the values
    embed = found.open(1)
    vectors = embed(few_cells().slice(0, 2))
    assert isinstance(vectors, torch.Tensor)
    assert vectors.shape == (2, D)


def test_pca_and_scvi_read_the_genes_that_vary_most() -> None:
    rows = few_cells()
    genes = variable_genes(rows, GENES)
    assert len(genes) == NUM_GENES
    position = np.full(GENES, -1)
    position[genes] = np.arange(NUM_GENES)
    values = np.zeros((len(rows), GENES), np.float32)
    for row in range(len(rows)):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        values[row, rows.gene_index[part]] = rows.value[part]
    np.testing.assert_array_equal(dense(rows, position), values[:, genes])
    left_out = np.setdiff1d(np.arange(GENES), genes)
    assert values[:, genes].var(axis=0).min() >= values[:, left_out].var(axis=0).max() - 1e-6
    pca, scvi = small_models(rows, GENES)
    components = pca.open(1)(rows)
    assert isinstance(components, np.ndarray)
    assert components.shape == (60, 50)
    assert scvi.flop == 2 * (NUM_GENES * 128 + 2 * 128 * 10)


def test_a_model_is_measured_at_least_once_however_slow() -> None:
    calls: list[int] = []
    peer = Peer("any", "-", lambda threads: lambda rows: calls.append(len(rows)), 1e6, 8)
    found = measure(peer, few_cells(), 2, 0.0)
    assert calls == [8, 8]  # one to warm up
    assert found.rate > 0


def test_a_profile_adds_up_to_the_time_of_a_run() -> None:
    from scpalm.model.bundle import Bundle
    from scpalm.model.sessions.shapes import example

    batch = example(256, 2, 256)
    times, whole = operator_times(Bundle.load().file("embed.onnx"), batch.feed())
    assert "MatMul" in times
    assert 0 < sum(times.values()) <= whole
