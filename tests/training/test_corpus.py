from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.embedding import SparseCells
from model.errors import BundleError
from tests.training.tiny import NUM_GENES
from training.corpus import Corpus, CorpusError, _thinned, split_counts, thin_counts


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
    assert_same(corpus.batch(rows, keep=np.ones(10), rng=np.random.default_rng(0)), corpus.batch(rows))


def test_thinning_is_seeded(corpus: Corpus) -> None:
    rows, keep = np.arange(10), np.full(10, 0.5)
    first = corpus.batch(rows, keep=keep, rng=np.random.default_rng(0))
    assert_same(first, corpus.batch(rows, keep=keep, rng=np.random.default_rng(0)))
    assert len(corpus.batch(rows, keep=keep, rng=np.random.default_rng(1)).value) != len(
        first.value
    ) or not torch.equal(corpus.batch(rows, keep=keep, rng=np.random.default_rng(1)).value, first.value)


def test_thinned_cells_are_parts_of_all_their_counts_also_of_unknown_genes() -> None:
    counts = np.full(10, 100.0)  # and 1,000 more of genes outside the vocabulary
    values = np.log1p(counts * 1e4 / 2000).astype(np.float32)
    random = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        for genes, part in split_counts(np.arange(10, dtype=np.int32), values, 2000.0, share, random):
            assert len(genes) == 10
            assert np.expm1(part.astype(np.float64)).sum() == pytest.approx(5000, rel=0.12)


def test_thinning_alone_is_the_first_of_the_two_parts() -> None:
    genes = np.arange(40, dtype=np.int32)
    values = np.log1p(np.arange(1.0, 41.0) * 1e4 / 900).astype(np.float32)
    for share in (0.0, 0.01, 0.4, 1.0):
        alone = thin_counts(genes, values, 900.0, share, np.random.default_rng(2))
        first, _ = split_counts(genes, values, 900.0, share, np.random.default_rng(2))
        np.testing.assert_array_equal(alone[0], first[0])
        np.testing.assert_array_equal(alone[1], first[1])


def test_the_two_parts_of_a_cell_add_up_to_it() -> None:
    genes = np.arange(30, dtype=np.int32)
    counts = np.random.default_rng(0).poisson(20, 30).astype(np.float64) + 1
    total = counts.sum()
    values = np.log1p(counts * 1e4 / total).astype(np.float32)
    (g1, v1), (g2, v2) = split_counts(genes, values, total, 0.3, np.random.default_rng(1))

    def shares(part: NDArray[np.int32], value: NDArray[np.float32]) -> NDArray[np.float64]:
        out = np.zeros(30)
        out[part] = np.expm1(value.astype(np.float64)) / 1e4
        return out

    # With all counts known, the shares of both parts, weighted by their unknown sizes, are those of the whole.
    a, b, whole = shares(g1, v1), shares(g2, v2), counts / total
    weight = np.linalg.lstsq(np.stack([a, b], axis=1), whole, rcond=None)[0]
    assert weight.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(weight[0] * a + weight[1] * b, whole, atol=1e-6)
    assert weight[0] == pytest.approx(0.3, abs=0.06)


def test_thinning_keeps_the_expected_share_of_each_gene() -> None:
    counts = np.array([4.0, 40.0, 400.0, 4000.0])
    total = counts.sum()
    values = np.log1p(counts * 1e4 / total).astype(np.float32)
    random = np.random.default_rng(0)
    kept = np.zeros(4)
    for _ in range(400):
        genes, part = split_counts(np.arange(4, dtype=np.int32), values, total, 0.25, random)[0]
        kept[genes] += np.expm1(part.astype(np.float64)) / 1e4
    np.testing.assert_allclose(kept / 400, counts / total, rtol=0.12)


@pytest.mark.parametrize("size", [2, 40])
def test_both_ways_of_thinning_are_binomial(size: int) -> None:
    counts = np.full(20_000, size)
    kept = _thinned(counts, 0.3, np.random.default_rng(0))
    assert kept.min() >= 0 and kept.max() <= size
    assert kept.mean() == pytest.approx(0.3 * size, rel=0.02)
    assert kept.var() == pytest.approx(0.3 * 0.7 * size, rel=0.05)
    assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 0.03


def test_a_cell_that_would_be_left_without_counts_stays_whole() -> None:
    genes, values = np.array([3], np.int32), np.array([np.log1p(1e4)], np.float32)
    for part in split_counts(genes, values, 1.0, 0.5, np.random.default_rng(0)):
        np.testing.assert_array_equal(part[0], genes)
        np.testing.assert_array_equal(part[1], values)


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


def test_row_boundaries_that_fall_are_named(corpus: Corpus, tmp_path: Path) -> None:
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
def test_a_shard_with_content_that_cannot_be_is_named_when_it_is_read(
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
def test_a_description_that_does_not_fit_is_refused(corpus: Corpus, tmp_path: Path, change: dict[str, object]) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    (path / "corpus.json").write_text(json.dumps(corpus.meta | change))
    with pytest.raises(CorpusError, match="Build the corpus again"):
        Corpus(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format_version": 1}'])
def test_a_description_that_is_none_is_refused(corpus: Corpus, tmp_path: Path, text: str) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    (path / "corpus.json").write_text(text)
    with pytest.raises(CorpusError):
        Corpus(path)
