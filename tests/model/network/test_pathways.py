from __future__ import annotations

from dataclasses import replace

import torch

from scpalm.model.network.pathways import GeneHead, PathwayAutoencoder
from tests.model.small_network import CONFIG, GENES, random_cells, small_cells, sparse_of


def network() -> PathwayAutoencoder:
    torch.manual_seed(0)
    return PathwayAutoencoder(CONFIG)


def test_every_gene_reads_its_own_token() -> None:
    torch.manual_seed(0)
    genes, count, width = 50, 8, 16  # S = 7: the last token has one gene
    head = GeneHead(genes, count, width)
    with torch.no_grad():
        head.bias.copy_(torch.randn(genes))
    tokens = torch.randn(3, count, width)
    values = head(tokens)
    assert values.shape == (3, genes)
    for gene in (0, 6, 7, 48, 49):
        expected = tokens[:, gene // 7] @ head.weight[gene // 7, :, gene % 7] + head.bias[gene]
        torch.testing.assert_close(values[:, gene], expected, rtol=1e-4, atol=1e-5)


def test_a_shared_head_reads_all_tokens_with_one_weight() -> None:
    torch.manual_seed(0)
    head = GeneHead(50, 8, 16, shared=True)
    tokens = torch.randn(3, 1, 16).expand(-1, 8, -1)
    values = head(tokens)
    assert head.weight.shape == (1, 16, 7)
    assert values.shape == (3, 50)
    # Equal tokens give equal values at the same position of every region.
    torch.testing.assert_close(values[:, :7], values[:, 7:14])


def test_shapes_with_and_without_the_quantizer() -> None:
    model = network()
    with_codes, without = model(small_cells()), model(small_cells(), quantize=False)
    for out in (with_codes, without):
        assert out.values.shape == (6, GENES)
        assert out.encoded.shape == (6, CONFIG.num_tokens, CONFIG.width)
        assert out.scores.shape == (6, CONFIG.num_tokens)
    assert without.quantized is None
    assert with_codes.quantized is not None
    assert with_codes.quantized.indices.shape == (6, CONFIG.num_tokens)


def test_encode_gives_the_codes_that_forward_uses() -> None:
    model = network().eval()
    out = model(small_cells())
    assert out.quantized is not None
    assert torch.equal(model.encode(small_cells()), out.quantized.indices)
    tokens = model.quantizer.from_indices(out.quantized.indices)
    torch.testing.assert_close(model.decode(tokens), out.values)


def test_a_cells_output_in_eval_does_not_depend_on_the_batch() -> None:
    model = network()
    for seed in range(20):  # move the running statistics away from their initial values
        model(small_cells(seed=seed))
    model.eval()
    x, measured = random_cells()
    codes, values = model.encode(sparse_of(x, measured)), model(sparse_of(x, measured)).values
    assert (codes != codes[0]).any()
    for i in range(len(x)):
        alone = sparse_of(x[i : i + 1], measured[i : i + 1])
        assert torch.equal(model.encode(alone)[0], codes[i])
        torch.testing.assert_close(model(alone).values[0], values[i], rtol=1e-4, atol=1e-5)


def test_code_width_zero_means_full_width() -> None:
    model = PathwayAutoencoder(replace(CONFIG, code_width=0))
    assert model.quantizer.codes.shape == (CONFIG.num_codes, CONFIG.width)
    assert model(small_cells()).values.shape == (6, GENES)


def test_every_parameter_gets_a_gradient() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():  # replace initial zeros, which would stop gradients
            parameter.add_(0.1 * torch.randn_like(parameter))
    out = model(small_cells())
    assert out.quantized is not None
    (out.values.square().mean() + out.scores.square().mean() + out.quantized.loss).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
