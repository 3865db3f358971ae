from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig, Pooling
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.folded import InferenceNetwork, fold
from scpalm.model.network.pathways import PathwayAutoencoder
from tests.model.small_network import CONFIG, random_cells, small_cells, sparse_of


def trained(config: NetworkConfig = CONFIG) -> tuple[PathwayAutoencoder, CellEncoder]:
    """Both stages, with running statistics that differ from their initial values, as after training."""
    torch.manual_seed(0)
    stage1, cells = PathwayAutoencoder(config), CellEncoder(config)
    with torch.no_grad():
        stage1.embedding.identity.copy_(torch.randn_like(stage1.embedding.identity))
        for seed in range(100):
            stage1(small_cells(16, seed))
    return stage1.eval(), cells.eval()


def padded(x: Tensor, measured: Tensor, network: InferenceNetwork, length: int = 64) -> tuple[Tensor, ...]:
    gene_index, value = torch.zeros(len(x), length, dtype=torch.int32), torch.zeros(len(x), length)
    for i, cell in enumerate(x):
        genes = torch.nonzero(cell)[:, 0]
        gene_index[i, : len(genes)], value[i, : len(genes)] = genes.to(torch.int32), cell[genes]
    return gene_index, value, measured.float() @ network.offset, measured.float().sum(1, keepdim=True)


@torch.no_grad()
def both(
    stage1: PathwayAutoencoder, cells: CellEncoder, x: Tensor, measured: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    batch: SparseCells = sparse_of(x, measured)
    codes = stage1.encode(batch)
    network = fold(stage1, cells)
    return network(*padded(x, measured, network)), (cells.embed(stage1.quantizer.from_indices(codes)), codes)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("code_width", [4, 0])
def test_the_folded_network_equals_the_trained_one(code_width: int, pooling: Pooling) -> None:
    x, measured = random_cells(12)
    config = replace(CONFIG, code_width=code_width, pooling=pooling)
    (h, codes), (expected_h, expected_codes) = both(*trained(config), x, measured)
    assert len(expected_codes.unique(dim=0)) > 1
    assert torch.equal(codes.long(), expected_codes)
    assert codes.dtype == torch.int32
    torch.testing.assert_close(h, expected_h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"norm": "post"}, {"affine": "learned"}, {"affine": "none"}, {"head": "shared"}])
def test_every_foldable_option_is_folded(change: dict[str, str]) -> None:
    x, measured = random_cells(12)
    (h, codes), (expected_h, expected_codes) = both(*trained(replace(CONFIG, **change)), x, measured)  # type: ignore[arg-type]
    assert torch.equal(codes.long(), expected_codes)
    torch.testing.assert_close(h, expected_h, rtol=1e-4, atol=1e-4)


def test_a_value_map_of_two_layers_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match=r"value_map=two_layer cannot be exported.*Train with value_map=linear"):
        fold(*trained(replace(CONFIG, value_map="two_layer")))


def test_the_read_out_is_the_standardised_one() -> None:
    stage1, cells = trained()
    x, measured = random_cells(12)
    network = fold(stage1, cells)
    with torch.no_grad():
        f = network.read_out(*padded(x, measured, network))
        torch.testing.assert_close(f, stage1.read_out(sparse_of(x, measured)), rtol=1e-4, atol=1e-4)


def test_the_read_out_with_sum_pooling_is_standardised_up_to_a_shift() -> None:
    stage1, cells = trained(replace(CONFIG, pooling="sum"))
    x, measured = random_cells(12)
    network = fold(stage1, cells)
    with torch.no_grad():
        f = network.read_out(*padded(x, measured, network)) - stage1.read_out(sparse_of(x, measured))
        torch.testing.assert_close(f, f[:1].expand_as(f), rtol=1e-4, atol=1e-4)


def test_folding_when_all_measured_genes_are_expressed() -> None:
    stage1, cells = trained()
    x, _ = random_cells(12)
    network = fold(stage1, cells)
    with torch.no_grad():
        f = network.read_out(*padded(x, x > 0, network))
        torch.testing.assert_close(f, stage1.read_out(sparse_of(x, x > 0)), rtol=1e-4, atol=1e-4)


def test_padding_does_not_affect_the_output() -> None:
    stage1, cells = trained()
    x, measured = random_cells(12)
    network = fold(stage1, cells)
    with torch.no_grad():
        short, long = (network(*padded(x, measured, network, length)) for length in (50, 200))
    assert torch.equal(short[1], long[1])
    torch.testing.assert_close(short[0], long[0], rtol=1e-5, atol=1e-5)
