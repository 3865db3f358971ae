"""The batches of each step, optionally read ahead by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import OptimizerConfig

Item_co = TypeVar("Item_co", covariant=True)
Item = TypeVar("Item")


def thinned_shares(config: OptimizerConfig, size: int, rng: np.random.Generator) -> np.ndarray:
    """``[size]`` share of counts to keep; 1 for cells that are not thinned."""
    share = rng.uniform(config.thin_low, 1.0, size)
    return np.where(rng.random(size) < config.thin_share, share, 1.0)


class ThinnedCells:
    """The cells that stage 1 embeds in a step, some thinned, and the same cells unthinned to reconstruct.

    Args:
        parts: this process's cells of a batch, in the parts that it computes one after the other.
    """

    def __init__(self, corpus: Corpus, sampler: Sampler, config: OptimizerConfig, parts: list[slice]) -> None:
        self.corpus, self.sampler, self.config, self.parts = corpus, sampler, config, parts

    def __call__(self, step: int) -> list[tuple[SparseCells, SparseCells]]:
        config = self.config
        rows = self.sampler.batch(step, config.batch_size)
        keep = thinned_shares(config, len(rows), self.sampler.generator(step, purpose=1))
        return [
            self.corpus.thinned_batch(rows[part], keep[part], self.sampler.streams(step, 3, part.start))
            for part in self.parts
        ]


class WholeCells:
    """The unthinned cells that stage 2 reconstructs in a step, part by part."""

    def __init__(self, corpus: Corpus, sampler: Sampler, config: OptimizerConfig, parts: list[slice]) -> None:
        self.corpus, self.sampler, self.config, self.parts = corpus, sampler, config, parts

    def __call__(self, step: int) -> list[SparseCells]:
        rows = self.sampler.batch(step, self.config.batch_size)
        return [self.corpus.batch(rows[part]) for part in self.parts]


class Source(Protocol[Item_co]):
    """Makes the batch of a step: the same one at every call and in every process."""

    def __call__(self, step: int) -> Item_co: ...


class Feed(Generic[Item]):
    """Returns the batches of consecutive steps, made here or ahead of time by ``workers`` processes.

    Workers only change the speed. A CorpusError in a worker is raised here unchanged.
    """

    def __init__(self, source: Source[Item], steps: int, workers: int) -> None:
        self.steps = steps
        self._source, self._workers = source, workers
        self._ahead: Iterator[Item | CorpusError] | None = None
        self._next = -1

    def at(self, step: int) -> Item:
        """The batch of a step. Raises CorpusError."""
        if not self._workers:
            return self._source(step)
        if self._ahead is None or step != self._next:
            loader: DataLoader[Item | CorpusError] = DataLoader(
                _BySteps(self._source, self.steps),
                batch_size=None,
                sampler=range(step, self.steps),
                num_workers=self._workers,
                prefetch_factor=4,
                # The shards stay mapped; nothing is copied to the workers.
                multiprocessing_context="fork",
            )
            self._ahead = iter(loader)
        self._next = step + 1
        item = next(self._ahead)
        if isinstance(item, CorpusError):
            raise item
        return item

    def close(self) -> None:
        """Stop the workers."""
        self._ahead = None


class _BySteps(Dataset[Item | CorpusError]):
    def __init__(self, source: Source[Item], steps: int) -> None:
        self._source, self._steps = source, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Item | CorpusError:
        try:
            return self._source(step)
        except CorpusError as error:  # raised in a worker, its text would include a traceback
            return error
