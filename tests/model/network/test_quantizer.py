from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scpalm.model.network.config import Affine
from scpalm.model.network.quantizer import CodeSizes, Quantizer

TOKENS, WIDTH, CODES, NARROW = 5, 8, 12, 3


def quantizer(code_width: int = NARROW, *, patience: int = 3, affine: Affine = "running") -> Quantizer:
    torch.manual_seed(0)
    return Quantizer(CodeSizes(TOKENS, WIDTH, CODES, code_width), patience=patience, affine=affine)


def encoded(cells: int = 20, seed: int = 0) -> Tensor:
    return torch.randn(cells, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def trained(code_width: int = NARROW, *, affine: Affine = "running") -> Quantizer:
    """A quantizer whose statistics and affine map differ from their initial values."""
    module = quantizer(code_width, affine=affine)
    if affine == "learned":
        with torch.no_grad():
            module.code_shift.copy_(torch.tensor([0.5, -1.0, 0.1]))
            module.code_scale.copy_(torch.tensor([2.0, -0.5, 1.5]))
    for seed in range(5):
        module(3.0 * encoded(seed=seed) + 1.0)
    return module


def copied(module: Quantizer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_eval_is_pure() -> None:
    module = trained().eval()
    before = copied(module)
    first, again = module(encoded()), module(encoded())
    module(encoded(seed=9))
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.tokens, again.tokens)
    assert float(first.loss) == 0.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_codes_of_a_cell_do_not_depend_on_other_cells() -> None:
    module = trained().eval()
    together = module(encoded()).indices
    assert all(torch.equal(module(encoded()[i : i + 1]).indices[0], together[i]) for i in range(20))


def test_training_moves_the_statistics() -> None:
    module = quantizer()
    before = copied(module)
    module(3.0 * encoded() + 1.0)
    for name in ("input_mean", "input_std", "code_mean", "code_std"):
        assert not torch.equal(module.state_dict()[name], before[name]), name


def test_state_dict_round_trip_is_bit_exact() -> None:
    module, other = trained().eval(), quantizer().eval()
    other.load_state_dict(module.state_dict(), strict=True)
    a, b = module(encoded()), other(encoded())
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.tokens, b.tokens)


def test_nearest_and_from_indices_agree_with_forward() -> None:
    for code_width in (NARROW, 0):
        module = trained(code_width).eval()
        out = module(encoded())
        assert torch.equal(module.nearest(module.standardise(encoded())), out.indices)
        assert torch.equal(module.from_indices(out.indices), out.tokens)


def test_the_index_is_that_of_the_nearest_code() -> None:
    module = trained().eval()
    point = module.standardise(encoded())
    distance = (point[:, :, None] - module.table()).square().sum(-1)
    assert torch.equal(module(encoded()).indices, distance.argmin(-1))


def test_ties_go_to_the_lowest_index() -> None:
    module = trained().eval()
    with torch.no_grad():
        module.codes[7] = module.codes[2]
        module.codes[4] = module.codes[2]
    point = module.table()[2].expand(6, -1)
    assert module.nearest(point).tolist() == [2] * 6


def test_codes_are_used_through_their_affine_map() -> None:
    module = trained().eval()
    module.code_mean.fill_(0.5)
    module.code_std.fill_(2.0)
    torch.testing.assert_close(module.table(), (module.codes - 0.5) / 2.0)


def test_a_learned_affine_map_is_trained_and_none_leaves_codes_unchanged() -> None:
    module = trained(affine="learned")
    torch.testing.assert_close(module.table(), module.code_shift + module.code_scale * module.codes)
    module(encoded()).loss.backward()
    for parameter in (module.code_shift, module.code_scale, module.codes):
        assert parameter.grad is not None and bool((parameter.grad != 0).any())
    module = trained(affine="none")
    assert torch.equal(module.table(), module.codes)
    assert not {name for name in module.state_dict() if name.startswith("code_")}


def test_a_synchronised_update_gives_codes_the_reconstruction_gradient() -> None:
    weight = torch.randn(20, TOKENS, NARROW)
    for sync, share in ((0.0, 0.0), (0.3, 0.3)):
        module = quantizer(affine="none").train()
        module.sync = sync
        module.up = torch.nn.Identity()
        out = module(encoded())
        (out.tokens * weight).sum().backward()
        expected = torch.zeros(CODES, NARROW).index_add_(0, out.indices.reshape(-1), weight.reshape(-1, NARROW))
        gradient = torch.zeros_like(expected) if module.codes.grad is None else module.codes.grad
        torch.testing.assert_close(gradient, share * expected)


def test_the_gradient_goes_straight_through() -> None:
    module = trained(0).train()
    x = encoded().requires_grad_()
    weight = torch.randn(20, TOKENS, WIDTH)
    out = module(x)
    (out.tokens * weight).sum().backward()
    # Read the tokens as the standardised points.
    torch.testing.assert_close(x.grad, weight / module.input_std)


def test_the_loss_moves_codes_to_points_more_than_points_to_codes() -> None:
    module = trained(0).train()
    x = encoded().requires_grad_()
    out = module(x)
    out.loss.backward()
    torch.testing.assert_close(out.loss.detach(), out.distance)
    assert x.grad is not None and module.codes.grad is not None
    point = module.standardise(x).detach()
    pull = 2 * (1 - module.beta) * (point - module.table()[out.indices].detach()) / point.numel() / module.input_std
    torch.testing.assert_close(x.grad, pull)
    used = torch.bincount(out.indices.reshape(-1), minlength=CODES) > 0
    assert (module.codes.grad[used] != 0).any(dim=1).all()
    assert (module.codes.grad[~used] == 0).all()


def test_initialise_sets_the_statistics_and_places_the_codes_by_k_means() -> None:
    module = trained()
    points = 3.0 * encoded(200) + torch.arange(TOKENS)[:, None]
    module.initialise(points, torch.Generator().manual_seed(0))
    narrow = module.down(points)
    torch.testing.assert_close(module.input_mean, narrow.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.input_std, narrow.std(0), rtol=1e-5, atol=1e-5)
    assert torch.equal(module.table(), module.codes)
    out = module.eval()(points)
    assert len(out.indices.unique()) == CODES
    assert float(out.distance) < 0.5  # the points have variance 1


def test_initialise_is_seeded() -> None:
    tables = []
    for seed in (0, 0, 1):
        module = quantizer()
        module.initialise(encoded(200), torch.Generator().manual_seed(seed))
        tables.append(module.table())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


@pytest.mark.parametrize("affine", ["running", "learned", "none"])
def test_an_idle_code_is_moved_onto_an_encoder_output_after_its_patience(affine: Affine) -> None:
    module = trained(affine=affine)
    module.patience = 3
    module.idle_batches.zero_()
    with torch.no_grad():
        module.codes[5] = 1e3
    points = encoded()
    indices = torch.arange(100).reshape(20, TOKENS) % CODES
    indices[indices == 5] = 4
    generator = torch.Generator().manual_seed(0)
    assert [module.revive(points, indices, generator) for _ in range(4)] == [0, 0, 1, 0]
    nearest = (module.standardise(points).reshape(-1, NARROW) - module.table()[5]).detach().norm(dim=1).min()
    assert float(nearest) < 0.1
    assert module.idle_batches.tolist() == [0] * 5 + [1] + [0] * 6


def test_a_used_code_is_not_revived() -> None:
    module = trained()
    before = module.codes.detach().clone()
    indices = torch.arange(100).reshape(20, TOKENS) % CODES
    assert [module.revive(encoded(), indices, torch.Generator().manual_seed(0)) for _ in range(9)] == [0] * 9
    assert torch.equal(module.codes, before)
