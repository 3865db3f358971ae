from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scpalm.model.network.config import Pooling, ValueMap
from scpalm.model.network.embedding import GeneEmbedding, SparseCells
from tests.model.network.reference import literal_read_out
from tests.model.small_network import GENES, random_cells, sparse_of

TOKENS, WIDTH = 7, 10


def random_embedding(
    seed: int = 0,
    genes: int = GENES,
    tokens: int = TOKENS,
    width: int = WIDTH,
    pooling: Pooling = "mean",
    value_map: ValueMap = "linear",
) -> GeneEmbedding:
    torch.manual_seed(seed)
    embedding = GeneEmbedding(genes, tokens, width, pooling, value_map)
    with torch.no_grad():  # gates and identities that differ from their initial values, as after training
        embedding.gate.copy_(torch.randn_like(embedding.gate))
        embedding.identity.copy_(torch.randn_like(embedding.identity))
    return embedding


def literal(embedding: GeneEmbedding, x: Tensor, measured: Tensor) -> Tensor:
    return torch.stack([literal_read_out(embedding, *cell) for cell in zip(x, measured, strict=True)])


def largest_relative_difference(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("value_map", ["linear", "two_layer"])
@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_literal_algorithm_in_values_and_gradients(seed: int, pooling: Pooling, value_map: ValueMap) -> None:
    embedding = random_embedding(seed, pooling=pooling, value_map=value_map)
    x, measured = random_cells(seed=seed)
    weight = torch.randn(len(x), TOKENS)
    gradients = []
    for f in (embedding(sparse_of(x, measured)), literal(embedding, x, measured)):
        embedding.zero_grad()
        (f * weight).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in embedding.named_parameters() if p.grad is not None})
    with torch.no_grad():
        fast, slow = embedding(sparse_of(x, measured)), literal(embedding, x, measured)
    assert largest_relative_difference(fast, slow) < 1e-5
    assert set(gradients[0]) == {name for name, _ in embedding.named_parameters()}
    for name, reference in gradients[1].items():
        assert largest_relative_difference(gradients[0][name], reference) < 1e-5, name


@pytest.mark.parametrize("value_map", ["linear", "two_layer"])
@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_equals_the_literal_algorithm_where_all_measured_genes_are_expressed(
    pooling: Pooling, value_map: ValueMap
) -> None:
    embedding = random_embedding(pooling=pooling, value_map=value_map)
    x, _ = random_cells()
    with torch.no_grad():
        assert largest_relative_difference(embedding(sparse_of(x, x > 0)), literal(embedding, x, x > 0)) < 1e-5


def test_two_layers_are_not_linear_in_a_genes_value_and_have_no_tables() -> None:
    embedding = random_embedding(value_map="two_layer")
    x, measured = random_cells()
    n = (x > 0).sum(1, keepdim=True)
    with torch.no_grad():
        f, once, twice = (embedding(sparse_of(x * factor, measured)) * (n + 1) for factor in (0.5, 1.0, 1.5))
    assert ((twice - once) - (once - f)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="no tables"):
        embedding.tables()
    embedding.freeze()
    assert not embedding(sparse_of(x, measured)).requires_grad


@pytest.mark.parametrize("value_map", ["linear", "two_layer"])
def test_a_gene_set_shared_by_all_cells_needs_one_row(value_map: ValueMap) -> None:
    embedding = random_embedding(value_map=value_map)
    x, measured = random_cells()
    x = x * measured[:1]
    one = embedding(sparse_of(x, measured[:1]))
    torch.testing.assert_close(one, embedding(sparse_of(x, measured[:1].expand(len(x), -1))), rtol=0, atol=1e-6)


def test_the_order_of_the_genes_changes_nothing() -> None:
    embedding, permuted = random_embedding(), random_embedding()
    order = torch.randperm(GENES, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name in ("scale", "gate", "identity"):
            getattr(permuted, name).copy_(getattr(embedding, name)[order])
    x, measured = random_cells()
    f = embedding(sparse_of(x, measured))
    torch.testing.assert_close(permuted(sparse_of(x[:, order], measured[:, order])), f, rtol=1e-5, atol=1e-6)


def test_a_missing_gene_is_not_a_zero() -> None:
    embedding = random_embedding()
    x, measured = random_cells()
    zero = torch.nonzero(measured[0] & (x[0] == 0))[0, 0]
    without = measured.clone()
    without[0, zero] = False
    f, g = embedding(sparse_of(x, measured)), embedding(sparse_of(x, without))
    assert (f[0] - g[0]).abs().max() > 1e-4
    torch.testing.assert_close(f[1:], g[1:])


def test_a_missing_gene_does_not_affect_the_output() -> None:
    embedding = random_embedding()
    x, measured = random_cells()
    measured[:, 7] = False
    x[:, 7] = 0
    f = embedding(sparse_of(x, measured)).detach()
    with torch.no_grad():
        embedding.identity[7] += 100.0
    torch.testing.assert_close(embedding(sparse_of(x, measured)).detach(), f, rtol=1e-5, atol=1e-5)


def test_spectral_start_sets_the_slope_to_the_components_and_the_offset_to_zero() -> None:
    embedding = random_embedding(tokens=6, width=12)
    components = torch.randn(GENES, 6)
    embedding.spectral_start(components)
    slope, offset = embedding.tables()
    torch.testing.assert_close(slope, components, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(offset, torch.zeros_like(offset), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_spectral_start_is_the_same_read_out_with_two_layers(pooling: Pooling) -> None:
    components = torch.randn(GENES, 6)
    cells = sparse_of(*random_cells())
    read_outs = []
    for value_map in ("linear", "two_layer"):
        embedding = random_embedding(tokens=6, width=12, pooling=pooling, value_map=value_map)
        embedding.spectral_start(components)
        read_outs.append(embedding(cells))
    torch.testing.assert_close(*read_outs, rtol=1e-5, atol=1e-5)


def test_spectral_start_uses_as_many_components_as_fit() -> None:
    embedding = random_embedding(tokens=6, width=7)
    components = torch.randn(GENES, 6)
    embedding.spectral_start(components)
    torch.testing.assert_close(embedding.tables()[0][:, :3], components[:, :3], rtol=1e-5, atol=1e-6)


def test_a_frozen_embedding_is_equal_and_has_no_gradient() -> None:
    embedding = random_embedding()
    cells = sparse_of(*random_cells())
    f = embedding(cells).detach()
    embedding.freeze()
    frozen = embedding(cells)
    assert torch.equal(frozen, f)
    assert not frozen.requires_grad


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest result of any operation, including the backward pass."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_tensor_has_cells_and_genes_and_a_third_dimension() -> None:
    cells, genes, tokens, width = 64, 2000, 8, 12
    embedding = random_embedding(genes=genes, tokens=tokens, width=width)
    generator = torch.Generator().manual_seed(0)
    index = torch.cat([torch.randperm(genes, generator=generator)[:50].sort().values for _ in range(cells)])
    batch = SparseCells(index, torch.ones(len(index)), torch.arange(0, len(index), 50), torch.ones(1, genes) > 0)
    with LargestTensor() as largest:
        embedding(batch).sum().backward()
    # The largest tensors are [G, 2 d1] and [entries, N], far smaller than [B, G, N].
    assert 0 < largest.numel <= max(genes * 2 * width, len(index) * tokens)
    assert largest.numel < cells * genes * min(tokens, width) / 10


def test_lengths_and_dense_agree_with_the_input() -> None:
    x, measured = random_cells()
    cells = sparse_of(x, measured)
    assert len(cells) == len(x)
    assert torch.equal(cells.lengths(), (x > 0).sum(1))
    assert torch.equal(cells.dense(GENES), x)
