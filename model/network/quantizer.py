"""Vector quantizer with an affine reparametrisation of its codes (Huh et al. 2023; paper 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scpalm.model.network.collective import gathered, total, world_size
from scpalm.model.network.config import Affine


@dataclass
class Quantized:
    """What the quantizer gives back.

    Attributes:
        tokens: ``[B, N, D]``, straight-through in training. indices: ``[B, N]`` int64.
        loss: commitment and codebook loss, 0 in eval. distance: mean squared distance to the code.
    """

    tokens: Tensor
    indices: Tensor
    loss: Tensor
    distance: Tensor


@dataclass(frozen=True)
class CodeSizes:
    """Sizes of a quantizer: N, D and K, and the width in which the nearest code is sought (0 means D)."""

    num_tokens: int
    width: int
    num_codes: int
    code_width: int = 0


class Quantizer(nn.Module):
    """Nearest of K codes, in ``code_width`` dimensions, then back to D.

    The K codes are shared by all N positions. Encoder outputs are standardised per position first (running statistics,
    moved only in training): otherwise the position's own mean, which the decoder knows anyway, eats the codes up. The
    same statistics of the codes make the affine map of Huh et al.: ``v = (c - mean) / std``.

    Args:
        affine: ``running`` takes the map from running statistics of the codes, ``learned`` trains it
            (``v = shift + scale * c``), ``none`` uses the codes unchanged.
        beta: share of the codebook's loss beside the commitment's. patience: idle batches before a code is revived.
        sync: share of the reconstruction's gradient that codes get too, beside the encoder (Huh et al.'s synchronised
            update; 0 turns it off). Like ``beta`` and ``patience`` it is read at every step.

    ``bypass`` (off): for a stage 1 that was trained without codes; see ``kept``.
    """

    def __init__(
        self,
        sizes: CodeSizes,
        *,
        affine: Affine = "running",
        beta: float = 0.95,
        patience: int = 20,
        sync: float = 0.0,
    ) -> None:
        super().__init__()
        num_tokens, width, num_codes = sizes.num_tokens, sizes.width, sizes.num_codes
        code_width = sizes.code_width or width
        self.affine = affine
        self.sync = sync
        self.beta = beta
        self.patience = patience
        self.bypass = False
        self.down = nn.Linear(width, code_width) if code_width != width else nn.Identity()
        self.up = nn.Linear(code_width, width) if code_width != width else nn.Identity()
        self.codes = nn.Parameter(torch.randn(num_codes, code_width))
        self.register_buffer("input_mean", torch.zeros(num_tokens, code_width))
        self.register_buffer("input_std", torch.ones(num_tokens, code_width))
        if affine == "running":
            self.register_buffer("code_mean", torch.zeros(code_width))
            self.register_buffer("code_std", torch.ones(code_width))
        elif affine == "learned":
            self.code_shift = nn.Parameter(torch.zeros(code_width))
            self.code_scale = nn.Parameter(torch.ones(code_width))
        self.register_buffer("idle_batches", torch.zeros(num_codes, dtype=torch.int64))
        self.input_mean: Tensor
        self.input_std: Tensor
        self.code_mean: Tensor
        self.code_std: Tensor
        self.idle_batches: Tensor

    def standardise(self, encoded: Tensor) -> Tensor:
        """``[B, N, D] -> [B, N, code_width]`` in the space where distances are taken."""
        return (self.down(encoded) - self.input_mean) / self.input_std

    def table(self) -> Tensor:
        """``[K, code_width]``: the codes after their affine map, in the standardised space."""
        if self.affine == "running":
            return (self.codes - self.code_mean) / self.code_std
        if self.affine == "learned":
            return self.code_shift + self.code_scale * self.codes
        return self.codes

    def nearest(self, point: Tensor) -> Tensor:
        """``[..., code_width] -> [...]`` int64, in float32; ties go to the lowest index."""
        with torch.autocast(point.device.type, enabled=False):
            table = self.table().float()
            score = (table * table).sum(-1) - 2 * point.float() @ table.T
        return score.argmin(-1)

    def kept(self, encoded: Tensor) -> Tensor:
        """What is kept of ``encoded [B, N, D]``: indices ``[B, N]``; bypassed, points ``[B, N, code_width]``."""
        return self.down(encoded) if self.bypass else self.nearest(self.standardise(encoded))

    def tokens(self, kept: Tensor) -> Tensor:
        """``[B, N, D]`` from what was kept."""
        return self.up(kept) if self.bypass else self.from_indices(kept)

    def from_indices(self, indices: Tensor) -> Tensor:
        """``[B, N] -> [B, N, D]``: the token of each code."""
        return self.up(F.embedding(indices, self.table()))

    def forward(self, encoded: Tensor) -> Quantized:
        if self.training:
            self._move_statistics(encoded)
        point = self.standardise(encoded)
        indices = self.nearest(point)
        # Not table[indices]: on a CPU with two threads, its backward pass adds floats in no fixed order.
        code = F.embedding(indices, self.table())
        zero = point.new_zeros(())
        distance = F.mse_loss(point.detach(), code.detach())
        if not self.training:
            return Quantized(self.up(code), indices, zero, distance)
        loss = (1 - self.beta) * F.mse_loss(point, code.detach()) + self.beta * F.mse_loss(code, point.detach())
        tokens = point + (code - point).detach()
        if self.sync:
            tokens = tokens + self.sync * (code - code.detach())
        tokens = self.up(tokens)
        return Quantized(tokens, indices, loss, distance)

    @torch.no_grad()
    def _move_statistics(self, encoded: Tensor, momentum: float = 0.05) -> None:
        point = self.down(encoded).float()
        mean, std = (point.mean(0), point.std(0)) if world_size() == 1 else _mean_and_std(point)
        self.input_mean.lerp_(mean, momentum)
        self.input_std.lerp_(std.clamp(min=1e-4), momentum)
        if self.affine == "running":
            self.code_mean.lerp_(self.codes.mean(0), momentum)
            self.code_std.lerp_(self.codes.std(0).clamp(min=1e-4), momentum)

    @torch.no_grad()
    def start(self, encoded: Tensor, generator: torch.Generator, iterations: int = 20) -> None:
        """Set the statistics from ``encoded [B, N, D]`` and the codes by k-means on it."""
        point = self.down(encoded).float()
        self.input_mean.copy_(point.mean(0))
        self.input_std.copy_(point.std(0).clamp(min=1e-4))
        points = ((point - self.input_mean) / self.input_std).reshape(-1, point.shape[-1])
        num_codes = len(self.codes)
        centers = points[torch.randperm(len(points), generator=generator)[:num_codes]].clone()
        for _ in range(iterations):
            nearest = ((centers * centers).sum(-1) - 2 * points @ centers.T).argmin(-1)
            count = torch.bincount(nearest, minlength=num_codes)
            total = torch.zeros_like(centers).index_add_(0, nearest, points)
            empty = count == 0
            centers = total / count.clamp(min=1)[:, None]
            if empty.any():
                picks = torch.randint(len(points), (int(empty.sum()),), generator=generator)
                centers[empty] = points[picks]
        self.codes.copy_(centers)
        if self.affine == "running":
            self.code_mean.zero_()
            self.code_std.fill_(1.0)
        elif self.affine == "learned":
            self.code_shift.zero_()
            self.code_scale.fill_(1.0)
        self.idle_batches.zero_()

    @torch.no_grad()
    def revive(self, encoded: Tensor, indices: Tensor, generator: torch.Generator) -> int:
        """Count idle batches; move codes idle for ``patience`` of them onto random encoder outputs plus 1 % noise."""
        used = total(torch.bincount(indices.reshape(-1), minlength=len(self.codes))) > 0
        self.idle_batches.add_(1)
        self.idle_batches[used] = 0
        dead = self.idle_batches >= self.patience
        count = int(dead.sum())
        if count:
            # Of all processes: each must move the same codes to the same places.
            points = gathered(self.standardise(encoded).float()).reshape(-1, self.codes.shape[1])
            picks = points[torch.randint(len(points), (count,), generator=generator).to(points.device)]
            noise = torch.randn(picks.shape, generator=generator).to(points.device)
            # Written through the inverse of the affine map, so that it lands where it was picked.
            self.codes[dead] = self._unmapped(picks + 0.01 * noise)
            self.idle_batches[dead] = 0
        return count

    def _unmapped(self, point: Tensor) -> Tensor:
        """``[..., code_width]``: the code whose affine map is ``point``."""
        if self.affine == "running":
            return point * self.code_std + self.code_mean
        if self.affine == "learned":
            small = self.code_scale.abs().clamp(min=1e-4) * torch.where(self.code_scale < 0, -1.0, 1.0)
            return (point - self.code_shift) / small
        return point


def _mean_and_std(point: Tensor) -> tuple[Tensor, Tensor]:
    """Over the cells of all processes, ``[B, ...] -> [...]``."""
    count = world_size() * len(point)
    mean = total(point.sum(0)) / count
    return mean, (total((point - mean).square().sum(0)) / (count - 1)).sqrt()
