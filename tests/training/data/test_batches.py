from __future__ import annotations

import numpy as np
import pytest
import torch

from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.data.batches import Feed, ThinnedCells, WholeCells
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import Stage1Config

CONFIG = Stage1Config(batch_size=12, steps=8)


def cells_of(batch: SparseCells) -> list[tuple[bytes, bytes]]:
    ends = [*batch.offsets.tolist()[1:], len(batch.value)]
    return [
        (batch.gene_index[start:end].numpy().tobytes(), batch.value[start:end].numpy().tobytes())
        for start, end in zip(batch.offsets.tolist(), ends, strict=True)
    ]


def thinned(corpus: Corpus, parts: list[slice]) -> ThinnedCells:
    return ThinnedCells(corpus, Sampler(corpus, power=0.5, seed=0), CONFIG, parts)


def test_a_cell_does_not_depend_on_its_slice(corpus: Corpus) -> None:
    (whole,) = thinned(corpus, [slice(0, 12)])(3)
    parts = thinned(corpus, [slice(0, 4), slice(4, 8)])(3) + thinned(corpus, [slice(8, 12)])(3)
    for which in (0, 1):
        assert cells_of(whole[which]) == [cell for part in parts for cell in cells_of(part[which])]
    assert cells_of(whole[0]) != cells_of(whole[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(corpus: Corpus, workers: int) -> None:
    source = thinned(corpus, [slice(0, 12)])
    feed = Feed(source, CONFIG.steps, workers)
    for step in (0, 1, 2, 5, 6, 7, 1):
        ((cells, whole),) = feed.at(step)
        ((other_cells, other_whole),) = source(step)
        assert cells_of(cells) == cells_of(other_cells)
        assert cells_of(whole) == cells_of(other_whole)
        assert torch.equal(cells.measured, other_cells.measured)
    feed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corpus_error_passes_through_unchanged(corpus: Corpus, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: np.ndarray) -> SparseCells:
        raise CorpusError("shard-00007/value.npy is corrupt")

    monkeypatch.setattr(corpus, "batch", fail)
    feed = Feed(WholeCells(corpus, Sampler(corpus, power=0.5, seed=0), CONFIG, [slice(0, 12)]), 8, workers)
    with pytest.raises(CorpusError, match=r"^shard-00007/value\.npy is corrupt$"):
        feed.at(0)
