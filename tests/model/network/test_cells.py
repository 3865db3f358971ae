from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from scpalm.model.network.cells import CellDecoder, CellEncoder
from tests.model.small_network import CONFIG, GENES

Sees = Literal["none", "add", "prepend"]
N, D = CONFIG.num_tokens, CONFIG.width
KEPT = torch.tensor([[0, 3, 5], [1, 2, 7]])


def tokens(cells: int = 2, count: int = N) -> Tensor:
    return torch.randn(cells, count, D, generator=torch.Generator().manual_seed(0))


def encoder() -> CellEncoder:
    """An encoder with random weights: initially some branches are zero and would not be tested."""
    torch.manual_seed(0)
    model = CellEncoder(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def decoder(sees: Sees) -> CellDecoder:
    torch.manual_seed(0)
    return CellDecoder(replace(CONFIG, decoder_sees_cell=sees))


def test_the_sequence_is_the_cell_token_then_the_kept_tokens_with_their_positions() -> None:
    model, x = encoder(), tokens()
    sequence, whole = model.sequence(x, KEPT), model.sequence(x)
    assert (sequence.shape, whole.shape) == ((2, 4, D), (2, 1 + N, D))
    for cell, kept in enumerate(KEPT.tolist()):
        for place, position in enumerate(kept):
            assert torch.equal(sequence[cell, 1 + place], whole[cell, 1 + position])


def test_left_out_tokens_do_not_affect_the_output() -> None:
    model, x = encoder(), tokens()
    other = x.clone()
    other[0, [1, 2, 4, 6, 7]] = 100.0
    other[1, [0, 3, 4, 5, 6]] = -100.0
    for a, b in zip(model(x, KEPT), model(other, KEPT), strict=True):
        assert torch.equal(a, b)


def test_a_kept_token_affects_the_output() -> None:
    model, x = encoder(), tokens()
    other = x.clone()
    other[0, 3] *= -1.0
    assert not torch.allclose(model(x, KEPT)[0][0], model(other, KEPT)[0][0])


def test_positions_tell_equal_tokens_apart() -> None:
    model = encoder()
    x = tokens(1, 1).expand(2, N, D)
    assert not torch.allclose(model(x, KEPT)[0][0], model(x, KEPT)[0][1])


def test_shapes() -> None:
    cell, kept = encoder()(tokens(), KEPT)
    assert (cell.shape, kept.shape) == ((2, D), (2, 3, D))
    cell, kept = encoder()(tokens())
    assert (cell.shape, kept.shape) == ((2, D), (2, N, D))


def test_embed_is_the_cell_token_of_all_tokens() -> None:
    model = encoder()
    torch.testing.assert_close(model.embed(tokens()), model(tokens())[0], rtol=1e-5, atol=1e-6)
    every = torch.arange(N).expand(2, N)
    torch.testing.assert_close(model.embed(tokens()), model(tokens(), every)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sees", ["none", "add", "prepend"])
def test_decoder_sees_cell_selects_how_h_c_enters(sees: Sees) -> None:
    model = decoder(sees)
    kept = tokens(2, 3)
    values = model(torch.zeros(2, D), kept, KEPT)
    assert values.shape == (2, GENES)
    assert torch.equal(values, model(torch.ones(2, D), kept, KEPT)) is (sees == "none")


@pytest.mark.parametrize("sees", ["none", "add", "prepend"])
def test_h_c_gets_a_reconstruction_gradient_only_if_the_decoder_sees_it(sees: Sees) -> None:
    cell = torch.randn(2, D, requires_grad=True)
    model = decoder(sees)
    model(cell, tokens(2, 3), KEPT).square().mean().backward()
    if sees == "none":
        assert cell.grad is None
        assert model.from_cell.weight.grad is None
    else:
        assert cell.grad is not None and cell.grad.any()


@pytest.mark.parametrize("sees", ["none", "add", "prepend"])
def test_kept_tokens_are_at_their_positions_and_the_mask_token_elsewhere(sees: Sees) -> None:
    model = decoder(sees)
    seen: list[Tensor] = []
    model.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    kept = tokens(2, 3)
    model(torch.zeros(2, D), kept, KEPT)
    x = seen[0]
    from_cell = model.from_cell(torch.zeros(2, D))
    if sees == "prepend":
        assert torch.equal(x[:, 0], from_cell)
        x = x[:, 1:]
    elif sees == "add":
        x = x - from_cell[:, None]
    for cell, positions in enumerate(KEPT.tolist()):
        for position in range(N):
            token = kept[cell, positions.index(position)] if position in positions else model.mask_token
            torch.testing.assert_close(x[cell, position], token + model.position[position])
