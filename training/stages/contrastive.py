"""The contrastive term of stage 2 (paper 3.3, Algorithm 3).

It pulls the two views of a cell together and pushes away cells of other k-means clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    score = torch.rand(allowed.shape, generator=generator).to(allowed.device).masked_fill(~allowed, -1.0)
    if most >= allowed.shape[1]:
        return allowed
    cut = score.topk(most, dim=1).values[:, -1:]
    return allowed & (score >= cut)


class ClusterQueue:
    """The last ``size`` cell embeddings and their k-means centres, on the unit sphere (similarity is a cosine)."""

    def __init__(self, size: int, width: int, clusters: int) -> None:
        self.vectors = torch.zeros(size, width)
        self.filled = 0
        self.next = 0
        self.centers = torch.zeros(clusters, width)
        self.ready = False

    def add(self, h: Tensor) -> None:
        """Append ``[B, D]``, overwriting the oldest."""
        unit = F.normalize(h.detach().float().cpu(), dim=1)[-len(self.vectors) :]
        at = (torch.arange(len(unit)) + self.next) % len(self.vectors)
        self.vectors[at] = unit
        self.next = int((self.next + len(unit)) % len(self.vectors))
        self.filled = min(self.filled + len(unit), len(self.vectors))

    def refit(self, generator: torch.Generator, iterations: int = 10) -> None:
        """Run k-means on the queue; an empty cluster moves to a random vector."""
        points = self.vectors[: self.filled]
        k = len(self.centers)
        if not self.ready:
            self.centers = points[torch.randperm(len(points), generator=generator)[:k]].clone()
        for _ in range(iterations):
            nearest = (points @ self.centers.T).argmax(1)
            total = torch.zeros_like(self.centers).index_add_(0, nearest, points)
            empty = torch.bincount(nearest, minlength=k) == 0
            if empty.any():
                total[empty] = points[torch.randint(len(points), (int(empty.sum()),), generator=generator)]
            self.centers = F.normalize(total, dim=1)
        self.ready = True

    def assign(self, h: Tensor) -> Tensor:
        """``[B, D] -> [B]`` nearest centre."""
        return (F.normalize(h.detach().float(), dim=1) @ self.centers.to(h.device).T).argmax(1)

    def state(self) -> dict[str, object]:
        return {
            "vectors": self.vectors,
            "filled": self.filled,
            "next": self.next,
            "centers": self.centers,
            "ready": self.ready,
        }

    def restore(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
