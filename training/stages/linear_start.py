"""Start stage 2 from the best linear prediction, in closed form."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scpalm.model.network.cells import CellDecoder, CellEncoder
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.data.sampler import Sampler
from scpalm.training.stages.code_cache import CodeCache, codes_as_tensor

MIN_CELLS = 512
MOST_FEATURES = 2**28  # numbers at once: 1 GB, and the same again while they are centred


@torch.no_grad()
def start_linear(
    encoder: CellEncoder, decoder: CellDecoder, stage1: PathwayAutoencoder, cache: CodeCache, sampler: Sampler
) -> None:
    """Set h_C to the best linear prediction of the scores of unseen counts from the codes (ridge regression)."""
    quantizer, width = copy.deepcopy(stage1.quantizer).cpu(), stage1.config.width
    if isinstance(quantizer.up, nn.Linear):  # back from tokens to code space
        inverse = torch.linalg.pinv(quantizer.up.weight)
        encoder.narrow.weight.copy_(inverse)
        encoder.narrow.bias.copy_(-inverse @ quantizer.up.bias)
    else:
        encoder.narrow.weight.copy_(torch.eye(width))
        encoder.narrow.bias.zero_()
    # With `base` a cell has 65,536 features: use fewer cells, or they would not fit into memory.
    wide = encoder.token_mean.numel() * len(cache.codes)
    rows = sampler.draw(2**31 + 2, min(12288, 4 * len(sampler.rows), max(MIN_CELLS, MOST_FEATURES // wide)))
    tokens = [quantizer.decompress(codes_as_tensor(codes[rows])) for codes in cache.codes]
    encoder.token_mean.copy_(encoder.narrow(tokens[0]).mean(0))
    features = torch.cat([encoder.features(part).flatten(1) for part in tokens])
    scores = torch.cat([torch.from_numpy(part[rows]) for part in cache.scores])
    count = min(width, scores.shape[1])
    read_in = ridge(features, scores[:, :count])
    encoder.read_in.zero_()
    encoder.read_in[:, :, :count] = read_in.reshape(*encoder.read_in.shape[:2], count)
    encoder.cell_token[:count] = scores[:, :count].mean(0) - features.mean(0) @ read_in
    h = encoder.transformer.norm(encoder.cell_token + features @ encoder.read_in.flatten(0, 1))
    centred = h - h.mean(0)
    weight = ridge(centred, scores)
    decoder.scores.weight[: scores.shape[1]] = weight.T
    decoder.scores.bias[: scores.shape[1]] = scores.mean(0) - h.mean(0) @ weight


def ridge(x: Tensor, y: Tensor, strength: float = 30.0) -> Tensor:
    """``[features, targets]`` ridge weights of y on x, in double precision; the caller handles the means.

    With more features than cells, the same weights come from the inner products of cells: ``X^T (X X^T + s)^-1 y``.
    """
    if x.shape[1] > len(x):
        x, y = x - x.mean(0), y.double() - y.double().mean(0)
        inner = (x @ x.T).double() + strength * torch.eye(len(x), dtype=torch.float64)
        return x.T @ torch.linalg.solve(inner, y).float()
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    gram = x.T @ x + strength * torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ y).float()
