"""The read-out in PyTorch against the formula, cell by cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scpalm.model.genes.rows import GeneSet
from scpalm.model.network.read_out import EmbeddingNetwork, LinearReadOut, ViewHead, unit
from scpalm.model.read_out.basis import Basis
from tests.model.small_network import CONFIG, GENES, random_cells, sparse_of


def random_basis(seed: int = 0) -> Basis:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(GENES, CONFIG.components))
    weight, mean = random.uniform(0.5, 2, GENES), random.random(GENES)
    return Basis.of(
        vectors,
        weight.astype(np.float32),
        mean.astype(np.float32),
        ridge=CONFIG.ridge,
        value_scale=CONFIG.value_scale,
    )


def literal_scores(basis: Basis, x: Tensor, measured: Tensor) -> np.ndarray:
    """``z [R]`` of one cell, as the docstring of `Basis` says it."""
    known = measured.numpy()
    vectors = (basis.components * basis.scale.astype(np.float64))[known]
    y = np.log1p(basis.value_scale * np.expm1(x.double().numpy()))
    gram = vectors.T @ vectors
    ridge = basis.ridge * np.trace(gram) / basis.width * np.eye(basis.width)
    return (basis.gene_weight * (y - basis.mean))[known] @ vectors @ np.linalg.inv(gram + ridge)


def test_scores_follow_the_formula_for_every_gene_set() -> None:
    basis, (x, measured) = random_basis(), random_cells(12)
    read_out = LinearReadOut(CONFIG)
    read_out.load(basis)
    wanted = np.stack([literal_scores(basis, *cell) for cell in zip(x, measured, strict=True)])
    z = read_out.scores(sparse_of(x, measured))
    np.testing.assert_allclose(z.numpy(), wanted, rtol=1e-3, atol=1e-4)
    tokens = read_out(sparse_of(x, measured))
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(tokens[:, :-1], (wanted / length)[:, : CONFIG.num_tokens - 1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tokens[:, -1:], np.log(length), rtol=1e-3, atol=1e-4)


def test_the_served_graph_equals_the_read_out_and_the_head() -> None:
    torch.manual_seed(0)
    basis, (x, measured) = random_basis(), random_cells(12)
    measured[:] = measured[0] | (x > 0).any(0)
    read_out, network = LinearReadOut(CONFIG), EmbeddingNetwork(CONFIG)
    read_out.load(basis)
    network.load_basis(basis)
    gene_index = torch.arange(GENES, dtype=torch.int32).repeat(12, 1)
    correction = basis.correction(GeneSet(measured[0].numpy()))
    with torch.no_grad():
        center, solve = torch.from_numpy(correction.center), torch.from_numpy(correction.solve)
        log_measured = torch.tensor([[correction.log_measured]])
        embedding, log_length = network(gene_index, x, center, solve, log_measured)
        f, wanted = unit(read_out.scores(sparse_of(x, measured)))
        assert network.view_head is not None
        head = network.view_head(f, torch.full((12, 1), correction.log_measured))
    torch.testing.assert_close(embedding, torch.cat([f, head], dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_length, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.norm(dim=1), torch.ones(12))


def test_loaded_weights_replace_the_cached_tables() -> None:
    x, measured = random_cells(4)
    one, other = LinearReadOut(CONFIG), LinearReadOut(CONFIG)
    other.load(random_basis())
    assert not torch.equal(one.scores(sparse_of(x, measured)), other.scores(sparse_of(x, measured)))
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.scores(sparse_of(x, measured)), other.scores(sparse_of(x, measured)))


def test_a_head_ignores_the_length_of_its_output() -> None:
    head = ViewHead(12, 4, 8)
    h = head(torch.randn(5, 12), torch.zeros(5, 1))
    torch.testing.assert_close(h.norm(dim=1), torch.ones(5))
