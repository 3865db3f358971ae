"""Draw the cells of each step."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.corpus.thinning import Streams
from scpalm.training.runs.config import OptimizerConfig

_BLOCKS_A_WINDOW = 64


class Sampler:
    """Draws the rows of step t from (seed, t) only, so that a resumed run sees the same batches.

    A tissue (or data set, by ``balance_by``) with n cells is drawn with weight ``n ** power``: 1 draws cells evenly,
    0 draws tissues evenly.

    Simulated cells, if the corpus has any, are drawn with probability ``simulated_share``, and every profile counts
    alike. Sampled like real cells, they would be weighed by how many cells were drawn and how profile files divide
    tissues, which says nothing about biology. A fixed share keeps real noise in most of a batch, while each cell type
    that has a profile only is still seen.

    With ``block`` above 1, ``batch`` draws runs of that many neighbouring training cells, enough for several steps, and
    shuffles them. The disk then reads runs instead of single cells, and every cell keeps its weight. Batches are a
    little less mixed: those of one window share 64 or more runs.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        power: float,
        seed: int,
        block: int = 1,
        balance_by: Literal["tissue", "dataset"] = "tissue",
        simulated_share: float = OptimizerConfig.simulated_share,
    ) -> None:
        self.rows = corpus.train_rows
        if not len(self.rows):
            raise CorpusError(
                f"{corpus.path} has no cell to train on: all are held out. Build it with a lower held_out."
            )
        obs = corpus.obs.iloc[self.rows]
        # Of drawing each row; sum 1.
        self.probability = _weights(obs, power, balance_by, simulated_share)
        self._cumulative = np.cumsum(self.probability)
        self.seed = seed
        self.block = block
        self._window: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def generator(self, step: int, purpose: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, step, purpose])

    def streams(self, step: int, purpose: int, first: int) -> Streams:
        """Random numbers of the batch's cells from position ``first`` on; the same in every process."""
        return Streams(self.seed, step, purpose, first=first)

    def draw(self, step: int, size: int) -> NDArray[np.int64]:
        """``[size]`` rows, drawn one by one with replacement."""
        return self._at(self.generator(step).random(size))

    def batch(self, step: int, size: int) -> NDArray[np.int64]:
        """``[size]`` rows of a training step, with replacement, in blocks if ``block`` is above 1."""
        if self.block == 1:
            return self.draw(step, size)
        steps = max(1, -(-_BLOCKS_A_WINDOW * self.block // size))
        number, place = divmod(step, steps)
        if self._window is None or self._window[0] != (number, size):
            self._window = (number, size), self._draw_blocks(number, steps * size)
        return self._window[1][place * size : (place + 1) * size]

    def _draw_blocks(self, number: int, size: int) -> NDArray[np.int64]:
        rng = self.generator(number, purpose=4)
        last = np.append(np.arange(self.block - 1, len(self.rows) - 1, self.block), len(self.rows) - 1)
        ends = self._cumulative[last]  # up to and including each block
        points = rng.random(-(-size // self.block)) * ends[-1]
        chosen = np.searchsorted(ends, points, side="right").clip(max=len(ends) - 1)
        low = np.where(chosen > 0, ends[chosen - 1], 0.0)
        points = low[:, None] + rng.random((len(chosen), self.block)) * (ends[chosen] - low)[:, None]
        return rng.permutation(self._at(points.ravel()))[:size]

    def _at(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        positions = np.minimum(np.searchsorted(self._cumulative, points, side="right"), len(self.rows) - 1)
        return self.rows[positions]


def _weights(obs: pd.DataFrame, power: float, balance_by: str, simulated_share: float) -> NDArray[np.float64]:
    """``[rows]``, with sum 1."""
    simulated = obs["simulated"].to_numpy(bool)
    if not simulated.any():
        return _balanced(obs[balance_by].to_numpy(), power)
    profiles = obs[simulated].groupby(["dataset", "cell_type"], sort=False).ngroup().to_numpy()
    if simulated.all():
        return _balanced(profiles, 0.0)
    weight = np.empty(len(obs))
    weight[simulated] = simulated_share * _balanced(profiles, 0.0)
    weight[~simulated] = (1 - simulated_share) * _balanced(obs[balance_by].to_numpy()[~simulated], power)
    return weight


def _balanced(labels: NDArray[np.generic], power: float) -> NDArray[np.float64]:
    """``[rows]``, with sum 1: a label with n rows gets a weight of ``n ** power``."""
    group = pd.Categorical(labels)
    count = np.bincount(group.codes, minlength=len(group.categories)).astype(np.float64)
    weight = (count**power / count)[group.codes]
    return weight / weight.sum()
