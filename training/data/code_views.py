"""What stage 2 reads in a step: whole cells to reconstruct, and which codes of them two views keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.network.embedding import SparseCells
from scpalm.training.data.batches import WholeCells
from scpalm.training.runs.config import Stage2Config


@dataclass(frozen=True)
class ViewDraw:
    """A random view of B cells, by number.

    Attributes:
        row: ``[B]`` int64 rows of the corpus. replica: ``[B]`` int64, which cached codes of the cell.
        kept: ``[B, n]`` int64 sorted positions of the tokens that are kept.
    """

    row: Tensor
    replica: Tensor
    kept: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> ViewDraw:
        """The same view with every tensor changed, such as moved to a device."""
        return ViewDraw(change(self.row), change(self.replica), change(self.kept))


def draw_view(
    rows: NDArray[np.int64], share: float, num_tokens: int, config: Stage2Config, rng: np.random.Generator
) -> ViewDraw:
    """A view with ``share`` of the tokens, of whole cells or of random parts of their counts."""
    thinned = rng.random(len(rows)) < config.thin_share
    replica = np.where(thinned, rng.integers(min(1, config.replicas - 1), config.replicas, len(rows)), 0)
    count = min(max(round(share * num_tokens), 1), num_tokens)
    kept = np.sort(rng.random((len(rows), num_tokens)).argsort(axis=1)[:, :count], axis=1)
    return ViewDraw(torch.from_numpy(rows), torch.from_numpy(replica), torch.from_numpy(kept))


@dataclass(frozen=True)
class Stage2Batch:
    """A batch of stage 2.

    Attributes:
        view, other: two views of all cells of the batch, over all processes.
        cells: this process's cells, in the parts that it computes one after the other.
    """

    view: ViewDraw
    other: ViewDraw
    cells: list[SparseCells]

    def map(self, change: Callable[[Tensor], Tensor]) -> Stage2Batch:
        """The same batch with every tensor changed, such as moved to a device."""
        return Stage2Batch(self.view.map(change), self.other.map(change), [part.map(change) for part in self.cells])


class Stage2Batches:
    """The batch of each step, from (seed, step) only.

    Views are drawn for the whole batch, so that a cell's view does not depend on the process.
    """

    def __init__(self, whole: WholeCells, config: Stage2Config, num_tokens: int) -> None:
        self._whole, self._config, self._num_tokens = whole, config, num_tokens

    def __call__(self, step: int) -> Stage2Batch:
        config, sampler = self._config, self._whole.sampler
        rows = sampler.batch(step, config.batch_size)
        rng = sampler.generator(step, purpose=2)
        view = draw_view(rows, config.token_share, self._num_tokens, config, rng)
        other = draw_view(rows, config.view_share, self._num_tokens, config, rng)
        return Stage2Batch(view, other, self._whole(step))
