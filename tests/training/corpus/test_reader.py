from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scpalm.model.errors import BundleError
from scpalm.model.network.embedding import SparseCells
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.corpus.thinning import Streams
from tests.training.tiny import NUM_GENES


def test_a_batch_holds_the_cells_in_order(corpus: Corpus) -> None:
    rows = np.array([7, 250, 7, 130])  # of two files and two shards, one of them twice
    batch = corpus.batch(rows)
    assert (batch.gene_index.dtype, batch.value.dtype, batch.offsets.dtype) == (torch.int64, torch.float32, torch.int64)
    dense = batch.dense(NUM_GENES).numpy()
    for position, row in enumerate(rows):
        genes, values = corpus.cell(int(row))
        expected = np.zeros(NUM_GENES, np.float32)
        expected[genes] = values
        np.testing.assert_array_equal(dense[position], expected)
        np.testing.assert_array_equal(batch.measured[position].numpy(), corpus.measured[int(row >= 200)])


def assert_same(a: SparseCells, b: SparseCells) -> None:
    for name in ("gene_index", "value", "offsets", "measured"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_keeping_all_counts_is_the_whole_cell(corpus: Corpus) -> None:
    rows = np.arange(10)
    for batch in corpus.thinned_batch(rows, np.ones(10), Streams(0)):
        assert_same(batch, corpus.batch(rows))


def test_thinning_is_seeded_and_leaves_the_whole_unchanged(corpus: Corpus) -> None:
    rows, keep = np.arange(10), np.full(10, 0.5)
    first, whole = corpus.thinned_batch(rows, keep, Streams(0))
    assert_same(first, corpus.thinned_batch(rows, keep, Streams(0))[0])
    assert_same(whole, corpus.batch(rows))
    other = corpus.thinned_batch(rows, keep, Streams(1))[0]
    assert len(other.value) != len(first.value) or not torch.equal(other.value, first.value)


def test_only_cells_with_a_share_below_one_are_thinned(corpus: Corpus) -> None:
    rows = np.array([3, 250, 9])
    thinned, whole = corpus.thinned_batch(rows, np.array([1.0, 0.5, 1.0]), Streams(0))
    same = (thinned.dense(NUM_GENES) == whole.dense(NUM_GENES)).all(1)
    assert same.tolist() == [True, False, True]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_bytes(b"no array")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, remove, garble, empty])
@pytest.mark.parametrize("name", ["indptr", "gene_index", "value"])
def test_a_damaged_shard_is_named(corpus: Corpus, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    damage(path / "shard-00001" / f"{name}.npy")
    with pytest.raises(CorpusError, match=f"shard-00001/{name}.*Build the corpus again"):
        Corpus(path)


def test_shards_that_do_not_fit_together_are_named(corpus: Corpus, tmp_path: Path) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    shard = path / "shard-00000"
    np.save(shard / "value.npy", np.load(shard / "value.npy")[:-1])
    with pytest.raises(CorpusError, match="shard-00000 is corrupt"):
        Corpus(path)
    np.save(shard / "value.npy", np.load(shard / "gene_index.npy"))
    with pytest.raises(CorpusError, match=r"shard-00000/value\.npy is corrupt"):
        Corpus(path)


def test_decreasing_row_boundaries_are_named(corpus: Corpus, tmp_path: Path) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    boundaries = np.load(path / "shard-00002" / "indptr.npy")
    boundaries[3] = boundaries[5]
    np.save(path / "shard-00002" / "indptr.npy", boundaries)
    with pytest.raises(CorpusError, match=r"shard-00002/indptr\.npy is corrupt"):
        Corpus(path)


@pytest.mark.parametrize(
    "name, value",
    [("gene_index", NUM_GENES), ("gene_index", -1), ("value", np.nan), ("value", -1.0), ("value", np.inf)],
)
def test_a_shard_with_invalid_content_is_named_when_read(
    corpus: Corpus, tmp_path: Path, name: str, value: float
) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    array = np.load(path / "shard-00001" / f"{name}.npy")
    array[3] = value
    np.save(path / "shard-00001" / f"{name}.npy", array)
    damaged = Corpus(path)
    damaged.batch(np.arange(100))
    with pytest.raises(CorpusError, match=rf"shard-00001/{name}\.npy is corrupt: cell 128 .*Build the corpus again"):
        damaged.batch(np.arange(100, 140))


@pytest.mark.parametrize("damage", [truncate, remove, garble, empty])
@pytest.mark.parametrize("name", ["obs.parquet", "measured.npy", "genes.parquet", "corpus.json"])
def test_a_damaged_corpus_is_refused(corpus: Corpus, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    damage(path / name)
    with pytest.raises((CorpusError, BundleError)):
        Corpus(path)


@pytest.mark.parametrize("change", [{"format_version": 99}, {"shard_cells": [128, 128]}, {"files": []}])
def test_an_inconsistent_description_is_refused(corpus: Corpus, tmp_path: Path, change: dict[str, object]) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    (path / "corpus.json").write_text(json.dumps(corpus.meta | change))
    with pytest.raises(CorpusError, match="Build the corpus again"):
        Corpus(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format_version": 1}'])
def test_an_unreadable_description_is_refused(corpus: Corpus, tmp_path: Path, text: str) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    (path / "corpus.json").write_text(text)
    with pytest.raises(CorpusError):
        Corpus(path)
