"""The contrastive term of stage 2 (paper 3.3, Algorithm 3).

It pulls the two views of a cell together and pushes away cells of other k-means clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CPU = torch.device("cpu")
_SPARE = 0x5EED  # any number, for a second generator


def info_nce(view: Tensor, other: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """``-log exp(s+/t) / (exp(s+/t) + sum_j exp(s-_j/t))``, cosine similarities, mean over cells.

    Args:
        view, other: ``[B, D]`` two views of the same cells; cell j's ``other`` is a candidate negative of cell i.
        negative: ``[B, B]`` bool, whether j is a negative of i (the diagonal is ignored).
    """
    with torch.autocast(view.device.type, enabled=False):
        similarity = F.normalize(view.float(), dim=1) @ F.normalize(other.float(), dim=1).T / temperature
    itself = torch.eye(len(view), dtype=torch.bool, device=view.device)
    logits = similarity.masked_fill(~(negative | itself), float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(view), device=view.device))


def pick_negatives(cluster: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """``[B, B]`` bool: at most ``most`` random cells of other clusters for each cell. cluster: ``[B]`` int64."""
    allowed = cluster[:, None] != cluster[None, :]
    random = torch.rand(allowed.shape, generator=generator).to(allowed.device, non_blocking=True)
    score = random.masked_fill(~allowed, -1.0)
    if most >= allowed.shape[1]:
        return allowed
    cut = score.topk(most, dim=1).values[:, -1:]
    return allowed & (score >= cut)


class ClusterQueue:
    """The last ``size`` cell embeddings and their k-means centres, on the unit sphere (similarity is a cosine).

    Both stay on the device, and no method waits for it.
    """

    def __init__(self, size: int, width: int, clusters: int, device: torch.device = _CPU) -> None:
        self.vectors = torch.zeros(size, width, device=device)
        self.filled = 0
        self.next = 0
        self.centers = torch.zeros(clusters, width, device=device)
        self.ready = False

    def add(self, h: Tensor) -> None:
        """Append ``[B, D]``, overwriting the oldest."""
        unit = F.normalize(h.detach().float(), dim=1)[-len(self.vectors) :]
        at = (torch.arange(len(unit), device=unit.device) + self.next) % len(self.vectors)
        self.vectors[at] = unit
        self.next = int((self.next + len(unit)) % len(self.vectors))
        self.filled = min(self.filled + len(unit), len(self.vectors))

    def refit(self, generator: torch.Generator, iterations: int = 10) -> None:
        """Run k-means on the queue; an empty cluster moves to a random vector."""
        points = self.vectors[: self.filled]
        k, device = len(self.centers), points.device
        if not self.ready:
            first = torch.randperm(len(points), generator=generator)[:k].to(device, non_blocking=True)
            self.centers = points[first]
        # A vector is drawn for every cluster, from another generator: the numbers that the caller draws next do not
        # depend on how many clusters are empty, which only the device knows.
        spare = torch.Generator().manual_seed(generator.initial_seed() ^ _SPARE)
        picks = torch.randint(len(points), (iterations, k), generator=spare).to(device, non_blocking=True)
        ones = torch.ones(len(points), dtype=torch.int64, device=device)
        for pick in picks:
            nearest = (points @ self.centers.T).argmax(1)
            total = torch.zeros_like(self.centers).index_add_(0, nearest, points)
            empty = torch.zeros(k, dtype=torch.int64, device=device).index_add_(0, nearest, ones) == 0
            self.centers = F.normalize(torch.where(empty[:, None], points[pick], total), dim=1)
        self.ready = True

    def assign(self, h: Tensor) -> Tensor:
        """``[B, D] -> [B]`` nearest centre."""
        return (F.normalize(h.detach().float(), dim=1) @ self.centers.T).argmax(1)

    def state(self) -> dict[str, object]:
        return {
            "vectors": self.vectors,
            "filled": self.filled,
            "next": self.next,
            "centers": self.centers,
            "ready": self.ready,
        }

    def restore(self, state: dict[str, object]) -> None:
        device = self.vectors.device
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)
