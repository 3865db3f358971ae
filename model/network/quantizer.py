"""Vector quantizer with an affine reparametrisation of its codes (paper 3.2; Huh et al. 2023).

Letters: B cells, N tokens, D width, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scpalm.model.network.collective import all_reduce_sum, rank, world_size
from scpalm.model.network.config import Affine


@dataclass
class Quantized:
    """Output of the quantizer.

    Attributes:
        tokens: ``[B, N, D]``, with straight-through gradients in training.
        indices: ``[B, N]`` int64, the code of each token.
        loss: commitment and codebook loss, 0 in eval.
        distance: mean squared distance to the nearest code.
    """

    tokens: Tensor
    indices: Tensor
    loss: Tensor
    distance: Tensor


@dataclass(frozen=True)
class CodeSizes:
    """Sizes of a quantizer: N, D, K, and the number of dimensions for the nearest-code search (0 means D)."""

    num_tokens: int
    width: int
    num_codes: int
    code_width: int = 0


class Quantizer(nn.Module):
    """Projects tokens to ``code_width`` dimensions, replaces each by the nearest of K codes, and projects back to D.

    All N positions share the K codes. Encoder outputs are first standardised per position, with running statistics that
    are updated only in training. Otherwise the codes would mostly encode the mean of each position, which the decoder
    knows anyway. The same statistics of the codes give the affine map of Huh et al.: ``v = (c - mean) / std``.

    Args:
        sizes: N, D, K and code_width.
        affine: ``running`` takes the affine map from running statistics of the codes; ``learned`` trains it
            (``v = shift + scale * c``); ``none`` uses the codes unchanged.
        beta: weight of the codebook loss; the commitment loss has ``1 - beta``.
        patience: idle batches before a code is revived.
        sync: fraction of the reconstruction gradient that the codes receive as well as the encoder (the synchronised
            update of Huh et al.; 0 turns it off).

    ``beta``, ``patience`` and ``sync`` may be changed between steps. Set ``bypass`` for a stage 1 that was trained
    without codes; see `compress`.
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
        """``[B, N, D] -> [B, N, code_width]``, the space in which distances are computed; in float32."""
        return (self._narrow(encoded) - self.input_mean) / self.input_std

    def _narrow(self, encoded: Tensor) -> Tensor:
        """``[..., D] -> [..., code_width]`` in float32, also where the network runs in bfloat16."""
        with torch.autocast(encoded.device.type, enabled=False):
            out: Tensor = self.down(encoded.float())
            return out

    def table(self) -> Tensor:
        """``[K, code_width]``: the codes after the affine map, in the standardised space."""
        if self.affine == "running":
            return (self.codes - self.code_mean) / self.code_std
        if self.affine == "learned":
            return self.code_shift + self.code_scale * self.codes
        return self.codes

    def nearest(self, point: Tensor) -> Tensor:
        """Index of the nearest code: ``[..., code_width] -> [...]`` int64, in float32. Ties go to the lowest index."""
        with torch.autocast(point.device.type, enabled=False):
            table = self.table().float()
            score = (table * table).sum(-1) - 2 * point.float() @ table.T  # |v|^2 - 2 e.v, [..., K]
        return score.argmin(-1)

    def compress(self, encoded: Tensor) -> Tensor:
        """``[B, N, D]`` -> code indices ``[B, N]``; with ``bypass``, points ``[B, N, code_width]``."""
        return self.down(encoded) if self.bypass else self.nearest(self.standardise(encoded))

    def decompress(self, compressed: Tensor) -> Tensor:
        """Output of `compress` -> tokens ``[B, N, D]``."""
        return self.up(compressed) if self.bypass else self.from_indices(compressed)

    def from_indices(self, indices: Tensor) -> Tensor:
        """``[B, N] -> [B, N, D]``: the token of each code."""
        return self.up(F.embedding(indices, self.table()))

    def forward(self, encoded: Tensor) -> Quantized:
        if self.training:
            self._update_statistics(encoded)
        point = self.standardise(encoded)  # [B, N, code_width]
        indices = self.nearest(point)  # [B, N]
        # Not table[indices]: on a CPU with two threads, its backward pass adds floats in no fixed order.
        code = F.embedding(indices, self.table())  # [B, N, code_width]
        zero = point.new_zeros(())
        distance = F.mse_loss(point.detach(), code.detach())
        if not self.training:
            return Quantized(self.up(code), indices, zero, distance)
        loss = (1 - self.beta) * F.mse_loss(point, code.detach()) + self.beta * F.mse_loss(code, point.detach())
        tokens = point + (code - point).detach()  # straight-through estimator
        if self.sync:
            tokens = tokens + self.sync * (code - code.detach())
        tokens = self.up(tokens)
        return Quantized(tokens, indices, loss, distance)

    @torch.no_grad()
    def _update_statistics(self, encoded: Tensor, momentum: float = 0.05) -> None:
        point = self._narrow(encoded)
        mean, std = (point.mean(0), point.std(0)) if world_size() == 1 else _mean_and_std(point)
        self.input_mean.lerp_(mean, momentum)
        self.input_std.lerp_(std.clamp(min=1e-4), momentum)
        if self.affine == "running":
            self.code_mean.lerp_(self.codes.mean(0), momentum)
            self.code_std.lerp_(self.codes.std(0).clamp(min=1e-4), momentum)

    @torch.no_grad()
    def initialise(self, encoded: Tensor, generator: torch.Generator, iterations: int = 20) -> None:
        """Initialise the statistics from ``encoded [B, N, D]``, and the codes by k-means on it."""
        point = self.down(encoded).float()  # [B, N, code_width]
        self.input_mean.copy_(point.mean(0))
        self.input_std.copy_(point.std(0).clamp(min=1e-4))
        points = ((point - self.input_mean) / self.input_std).reshape(-1, point.shape[-1])  # [B * N, code_width]
        num_codes = len(self.codes)
        centers = points[torch.randperm(len(points), generator=generator)[:num_codes]].clone()
        for _ in range(iterations):
            nearest = ((centers * centers).sum(-1) - 2 * points @ centers.T).argmin(-1)
            count = torch.bincount(nearest, minlength=num_codes)
            sums = torch.zeros_like(centers).index_add_(0, nearest, points)
            empty = count == 0
            centers = sums / count.clamp(min=1)[:, None]
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
    def revive(self, encoded: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Move codes that were idle for ``patience`` batches onto random encoder outputs plus 1 % noise.

        Call once per batch, with the batch's ``encoded [B, N, D]`` and ``indices [B, N]``. Returns the number of
        revived codes, int64 on the device. A new point is drawn for every code, so that nothing has to wait until the
        device has counted the idle ones.
        """
        counts = torch.zeros_like(self.idle_batches)
        counts.index_add_(0, indices.reshape(-1), torch.ones_like(indices).reshape(-1))
        self.idle_batches.add_(1).masked_fill_(all_reduce_sum(counts) > 0, 0)
        dead = self.idle_batches >= self.patience
        points = self._random_points(encoded, generator)
        noise = torch.randn(points.shape, generator=generator).to(points.device, non_blocking=True)
        # Invert the affine map, so that the mapped code is the chosen point.
        self.codes.copy_(torch.where(dead[:, None], self._invert_affine(points + 0.01 * noise), self.codes))
        self.idle_batches.masked_fill_(dead, 0)
        return dead.sum()

    def _random_points(self, encoded: Tensor, generator: torch.Generator) -> Tensor:
        """``[K, code_width]``: random rows of the standardised outputs of all processes, the same in each."""
        B, N, D = encoded.shape
        # The processes draw the same rows, each adds those it has, and zeros for the others.
        row = torch.randint(world_size() * B * N, (len(self.codes),), generator=generator) - rank() * B * N
        here = ((row >= 0) & (row < B * N)).to(encoded.device, non_blocking=True)
        row = row.clamp(0, B * N - 1).to(encoded.device, non_blocking=True)
        place = row % N
        points = (self._narrow(encoded.reshape(-1, D)[row]) - self.input_mean[place]) / self.input_std[place]
        return all_reduce_sum(points * here[:, None])

    def _invert_affine(self, point: Tensor) -> Tensor:
        """``[..., code_width]``: the code that the affine map takes to ``point``."""
        if self.affine == "running":
            return point * self.code_std + self.code_mean
        if self.affine == "learned":
            small = self.code_scale.abs().clamp(min=1e-4) * torch.where(self.code_scale < 0, -1.0, 1.0)
            return (point - self.code_shift) / small
        return point


def _mean_and_std(point: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the cells of all processes, ``[B, ...] -> [...]``."""
    count = world_size() * len(point)
    mean = all_reduce_sum(point.sum(0)) / count
    return mean, (all_reduce_sum((point - mean).square().sum(0)) / (count - 1)).sqrt()
