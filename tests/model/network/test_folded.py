from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig, Pooling
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.folded import fold
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import LinearReadOut, unit
from tests.model.small_network import CONFIG, random_cells, small_cells, sparse_of


def trained(config: NetworkConfig = CONFIG) -> tuple[PathwayAutoencoder, CellEncoder]:
    """Both stages, with running statistics that differ from their initial values, as after training."""
    torch.manual_seed(0)
    stage1, cells = PathwayAutoencoder(config), CellEncoder(config)
    with torch.no_grad():
        for seed in range(100):
            stage1(small_cells(16, seed))
    return stage1.eval(), cells.eval()


def inputs(stage1: PathwayAutoencoder, cells: SparseCells) -> tuple[Tensor, Tensor]:
    """f and log length, the inputs of the folded network."""
    assert isinstance(stage1.embedding, LinearReadOut)
    return unit(stage1.embedding.scores(cells))


@torch.no_grad()
def both(
    stage1: PathwayAutoencoder, cells: CellEncoder, x: Tensor, measured: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    batch = sparse_of(x, measured)
    codes = stage1.encode(batch)
    return fold(stage1, cells)(*inputs(stage1, batch)), (cells.embed(stage1.quantizer.from_indices(codes)), codes)


@pytest.mark.parametrize("code_width", [4, 0])
def test_the_folded_network_equals_the_trained_one(code_width: int) -> None:
    x, measured = random_cells(12)
    (h, codes), (expected_h, expected_codes) = both(*trained(replace(CONFIG, code_width=code_width)), x, measured)
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


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_another_read_out_cannot_be_folded(pooling: Pooling) -> None:
    with pytest.raises(ValueError, match=f"pooling={pooling} cannot be exported. Train with pooling=solve"):
        fold(*trained(replace(CONFIG, pooling=pooling)))


def test_the_inputs_of_the_tokens_are_the_standardised_ones() -> None:
    stage1, cells = trained()
    batch = small_cells(12)
    with torch.no_grad():
        tokens = fold(stage1, cells).inputs_of_tokens(*inputs(stage1, batch))
        torch.testing.assert_close(tokens, stage1.read_out(batch), rtol=1e-4, atol=1e-4)
