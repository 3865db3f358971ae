from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.training.corpus.packed import PackOptions, pack_corpus, unpack_corpus
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.corpus.thinning import Streams

FAST = PackOptions(level=1)


def copy_of(corpus: Corpus, folder: Path) -> Path:
    folder.mkdir()
    for file in corpus.path.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(corpus.path)).parent.mkdir(exist_ok=True)
            (folder / file.relative_to(corpus.path)).write_bytes(file.read_bytes())
    return folder


def test_a_corpus_comes_back_with_the_same_cells(corpus: Corpus, tmp_path: Path) -> None:
    packed = pack_corpus(corpus, tmp_path / "packed.npz", FAST)
    again = unpack_corpus(tmp_path / "packed.npz", tmp_path / "again")
    assert packed.cells == len(again) == len(corpus)
    assert packed.mib == pytest.approx((tmp_path / "packed.npz").stat().st_size / 2**20)
    np.testing.assert_array_equal(again.measured, corpus.measured)
    pd.testing.assert_frame_equal(again.obs.drop(columns="cell"), corpus.obs.drop(columns="cell"))
    assert (again.vocabulary.symbols, again.meta["files"]) == (corpus.vocabulary.symbols, corpus.meta["files"])
    for row in range(len(corpus)):
        (genes, values), (expected_genes, expected) = again.cell(row), corpus.cell(row)
        np.testing.assert_array_equal(genes, expected_genes)
        np.testing.assert_allclose(values, expected, rtol=3e-7)
    batch = again.thinned_batch(np.arange(8), np.full(8, 0.5), Streams(0, 1, 2))[0]
    expected_batch = corpus.thinned_batch(np.arange(8), np.full(8, 0.5), Streams(0, 1, 2))[0]
    np.testing.assert_allclose(batch.value, expected_batch.value, rtol=3e-7)


def test_large_counts_large_steps_and_values_that_are_no_counts(corpus: Corpus, tmp_path: Path) -> None:
    folder = copy_of(corpus, tmp_path / "changed")
    obs = pd.read_parquet(folder / "obs.parquet")
    # Gene 0 in the first and the last cell of a file only; a count far above a byte.
    indptr, index, value = ([], [], [])
    total = np.full(len(obs), 5000.0)
    cells = len(obs)
    file = np.zeros(cells, np.int64)
    for cell in range(cells):
        genes = [0, 1, 2] if cell in (0, cells - 1) else [1, 2]
        counts = [4000 if gene == 1 and cell == 3 else 1 + cell % 3 for gene in genes]
        index += genes
        value += np.log1p(np.array(counts) * (1e4 / 5000)).tolist()
        indptr.append(len(genes))
    sizes = json.loads((folder / "corpus.json").read_text())["shard_cells"]
    bounds = np.concatenate([[0], np.cumsum(indptr)])
    start = 0
    for number, size in enumerate(sizes):
        shard = folder / f"shard-{number:05d}"
        low, high = bounds[start], bounds[start + size]
        np.save(shard / "indptr.npy", (bounds[start : start + size + 1] - low).astype(np.int64))
        np.save(shard / "gene_index.npy", np.array(index[low:high], np.int32))
        np.save(shard / "value.npy", np.array(value[low:high], np.float32))
        start += size
    obs.assign(total=total, file=file).to_parquet(folder / "obs.parquet")
    for kind in ("counts", "log"):
        meta = json.loads((folder / "corpus.json").read_text())
        meta["files"][0]["input"] = kind
        (folder / "corpus.json").write_text(json.dumps(meta))
        changed = Corpus(folder)
        pack_corpus(changed, tmp_path / f"{kind}.npz", FAST)
        again = unpack_corpus(tmp_path / f"{kind}.npz", tmp_path / kind)
        for row in range(cells):
            np.testing.assert_array_equal(again.cell(row)[0], changed.cell(row)[0])
            tolerance = 3e-7 if kind == "counts" else 6e-4
            np.testing.assert_allclose(again.cell(row)[1], changed.cell(row)[1], rtol=tolerance)


def simulated(corpus: Corpus, folder: Path) -> Corpus:
    """The corpus with its second file marked as simulated from two profiles."""
    copy_of(corpus, folder)
    obs = pd.read_parquet(folder / "obs.parquet")
    second = obs["file"] == 1
    profile = np.where(np.arange(len(obs)) % 2, "one", "two")
    obs.assign(simulated=second, cell_type=np.where(second, profile, obs["cell_type"])).to_parquet(
        folder / "obs.parquet"
    )
    return Corpus(folder)


def test_simulated_cells_are_left_out_until_the_size_fits(corpus: Corpus, tmp_path: Path) -> None:
    cells = simulated(corpus, tmp_path / "simulated")
    whole = pack_corpus(cells, tmp_path / "whole.npz", FAST)
    assert whole.simulated_cells == 50
    smaller = pack_corpus(cells, tmp_path / "smaller.npz", PackOptions(max_mib=0.95 * whole.mib, level=1))
    assert smaller.mib <= 0.95 * whole.mib and 0 < smaller.simulated_cells < 50
    obs = unpack_corpus(tmp_path / "smaller.npz", tmp_path / "again").obs
    assert (~obs["simulated"]).sum() == 200
    assert obs[obs["simulated"]].groupby("cell_type").size().tolist() == [smaller.simulated_cells] * 2
    asked = pack_corpus(cells, tmp_path / "asked.npz", PackOptions(simulated_cells=3, level=1))
    assert asked.cells == 206
    with pytest.raises(CorpusError, match=r"MiB with 0 cells per profile, the limit is 0\.001 MiB"):
        pack_corpus(cells, tmp_path / "none.npz", PackOptions(max_mib=0.001, level=1))


def test_a_damaged_file_is_refused_and_leaves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "packed.npz"
    pack_corpus(corpus, file, FAST)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    for damaged in (bytes(content[:-100]), bytes(content), b"no archive"):
        file.write_bytes(damaged)
        with pytest.raises(CorpusError, match="not a packed corpus, or it is damaged"):
            unpack_corpus(file, tmp_path / "again")
        assert not (tmp_path / "again").exists()
