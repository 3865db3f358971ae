from __future__ import annotations

import numpy as np
import pytest
import torch

from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.data.batches import Feed, ThinnedCells, WholeCells
from scpalm.training.data.sampler import Sampler
from scpalm.training.data.transfer import DeviceFeed, map_tensors, to_device
from scpalm.training.runs.config import Stage1Config

CONFIG = Stage1Config(batch_size=12, steps=8)
CPU = torch.device("cpu")


def tensors(item: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(item, note)
    return found


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ahead", [False, True])
def test_batches_read_ahead_are_the_same(corpus: Corpus, workers: int, *, ahead: bool) -> None:
    source = ThinnedCells(corpus, Sampler(corpus, power=0.5, seed=0), CONFIG, [slice(0, 4), slice(4, 12)])
    feed = DeviceFeed(Feed(source, CONFIG.steps, workers), CPU, ahead=ahead)
    for step in (0, 1, 2, 5, 6, 7, 1):
        found, expected = tensors(feed.at(step)), tensors(source(step))
        assert len(found) == len(expected) > 0
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    feed.close()


def test_an_error_of_the_batch_read_ahead_is_raised_at_its_step(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = corpus.batch
    calls = iter(range(10))

    def fail_third(rows: np.ndarray) -> SparseCells:
        if next(calls) == 2:
            raise CorpusError("shard-00007/value.npy is corrupt")
        return batch(rows)

    monkeypatch.setattr(corpus, "batch", fail_third)
    source = WholeCells(corpus, Sampler(corpus, power=0.5, seed=0), CONFIG, [slice(0, 12)])
    feed = DeviceFeed(Feed(source, CONFIG.steps, 0), CPU, ahead=True)
    feed.at(0)
    feed.at(1)
    with pytest.raises(CorpusError, match=r"^shard-00007/value\.npy is corrupt$"):
        feed.at(2)
    feed.close()


def test_a_moved_batch_keeps_its_gene_sets(corpus: Corpus) -> None:
    rows = np.arange(190, 210)  # of two files
    batch = corpus.batch(rows)
    moved = to_device(batch, CPU)
    assert batch.groups is not None and moved.groups is not None
    assert [len(group.cells) for group in moved.groups] == [len(group.cells) for group in batch.groups]
    for group in moved.groups:
        for cell in group.cells.tolist():
            np.testing.assert_array_equal(group.measured, batch.measured[cell].numpy())
    assert sorted(cell for group in moved.groups for cell in group.cells.tolist()) == list(range(20))
