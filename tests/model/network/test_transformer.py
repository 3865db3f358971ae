from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scpalm.model.network.config import NormPlace
from scpalm.model.network.transformer import Attention, Layer, Transformer


def tokens(cells: int = 3, count: int = 6, width: int = 16) -> Tensor:
    return torch.randn(cells, count, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("layers", [1, 3])
def test_first_token_equals_the_first_token_of_forward(layers: int, norm: NormPlace) -> None:
    torch.manual_seed(0)
    network = Transformer(16, layers, 4, norm)
    torch.testing.assert_close(network.first_token(tokens()), network(tokens())[:, 0], rtol=1e-5, atol=1e-6)


def test_the_norm_is_before_the_branch_or_after_the_sum() -> None:
    for norm in ("pre", "post"):
        torch.manual_seed(0)
        layer = Layer(16, 4, norm)
        x = tokens()
        if norm == "pre":
            half = x + layer.attention(layer.norm1(x))
            expected = half + layer.feed_forward(layer.norm2(half))
        else:
            half = layer.norm1(x + layer.attention(x))
            expected = layer.norm2(half + layer.feed_forward(half))
        torch.testing.assert_close(layer(x), expected)


def test_attention_is_softmax_over_all_tokens() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 2)
    x = tokens()
    q, k, v = (part.reshape(3, 6, 2, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    share = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, dim=-1)
    expected = attention.out((share @ v).transpose(1, 2).reshape(3, 6, 16))
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_tokens_are_a_set_without_positions() -> None:
    torch.manual_seed(0)
    network = Transformer(16, 2, 4)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(network(tokens()[:, order]), network(tokens())[:, order], rtol=1e-4, atol=1e-5)


def test_a_cell_does_not_see_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    network = Transformer(16, 2, 4)
    torch.testing.assert_close(network(tokens()[1:2]), network(tokens())[1:2], rtol=1e-4, atol=1e-5)
