from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scpalm.model.genes.prepare import prepare
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.corpus.source import CorpusOptions
from tests.training.runs.full_disk import files_of_at_most
from tests.training.tiny import NUM_GENES, tiny_counts, tiny_vocabulary, write_h5ad, write_two_files

VOCABULARY = tiny_vocabulary()
PLAIN = CorpusOptions(held_out=0.0)


def test_every_cell_of_every_file_equals_its_prepared_rows(tmp_path: Path) -> None:
    files = write_two_files(tmp_path)
    build_corpus(tmp_path / "corpus", files, VOCABULARY, CorpusOptions(shard_cells=64))
    corpus = Corpus(tmp_path / "corpus")
    assert len(corpus) == 300
    assert corpus.meta["shard_cells"] == [64, 64, 64, 64, 44]
    row = 0
    for number, path in enumerate(files):
        with H5adFile(path) as file:
            (matrix,) = file.chunks(1000)
        prepared = prepare(matrix, VOCABULARY)
        np.testing.assert_array_equal(corpus.measured[number], prepared.rows.gene_sets[0].measured)
        for i, name in enumerate(prepared.cells):
            genes, values = corpus.cell(row)
            part = prepared.rows.slice(i, i + 1)
            np.testing.assert_array_equal(genes, part.gene_index)
            np.testing.assert_array_equal(values, part.value)
            assert tuple(corpus.obs.loc[row, ["cell", "file"]]) == (name, number)
            assert corpus.obs.loc[row, "total"] == matrix.row_totals()[i]
            row += 1
    assert corpus.obs["tissue"].tolist() == ["blood"] * 200 + ["skin"] * 100


def test_the_report_lists_the_cells_of_each_file(tmp_path: Path) -> None:
    meta = build_corpus(tmp_path / "corpus", write_two_files(tmp_path), VOCABULARY, PLAIN)
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text()) == meta
    first, second = meta["files"]
    assert (first["file"], first["cells"], first["genes_in"], first["genes_matched"]) == ("first.h5ad", 200, 120, 120)
    assert (second["file"], second["cells"], second["genes_in"], second["genes_matched"]) == (
        "second.h5ad",
        100,
        82,
        80,
    )
    for report in (first, second):
        assert (report["duplicates"], report["filtered"], report["evaluation_cells"]) == (0, 0, 0)
        assert report["input"] == "counts" and report["why"]


def test_the_same_files_give_the_same_corpus(tmp_path: Path) -> None:
    files = write_two_files(tmp_path)
    for name in ("a", "b"):
        build_corpus(tmp_path / name, files, VOCABULARY, CorpusOptions(held_out=0.2))
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_duplicates_within_and_across_files_are_dropped(tmp_path: Path) -> None:
    counts = tiny_counts(40, seed=3)
    one = write_h5ad(tmp_path / "one.h5ad", np.vstack([counts[:20], counts[:5]]))
    order = np.random.default_rng(0).permutation(NUM_GENES)
    # The same cells under other names, and with the genes in another order.
    two = write_h5ad(tmp_path / "two.h5ad", counts[10:][:, order], [f"OLD{i}" for i in order])
    meta = build_corpus(tmp_path / "corpus", [one, two], VOCABULARY, PLAIN)
    assert [(f["cells"], f["duplicates"]) for f in meta["files"]] == [(20, 5), (20, 10)]
    assert Corpus(tmp_path / "corpus").obs["cell"].tolist() == [
        *(f"one-{i}" for i in range(20)),
        *(f"two-{i}" for i in range(10, 30)),
    ]


def test_cells_of_evaluation_files_are_kept_out(tmp_path: Path) -> None:
    counts = tiny_counts(30, seed=3)
    empty = np.zeros((1, NUM_GENES), np.float32)
    evaluation = write_h5ad(tmp_path / "evaluation.h5ad", np.vstack([counts[:12], empty]))
    meta = build_corpus(
        tmp_path / "corpus", [write_h5ad(tmp_path / "train.h5ad", counts)], VOCABULARY, PLAIN, never=[evaluation]
    )
    assert (meta["files"][0]["cells"], meta["files"][0]["evaluation_cells"]) == (18, 12)


@pytest.mark.parametrize("genes_of", ["training", "evaluation"])
def test_cells_of_evaluation_files_are_kept_out_for_any_list_of_genes(tmp_path: Path, genes_of: str) -> None:
    counts = tiny_counts(30, seed=3)
    some = np.random.default_rng(1).permutation(NUM_GENES)[:70]
    names = [f"GENE{i}" for i in some]
    train = write_h5ad(tmp_path / "train.h5ad", counts)
    evaluation = write_h5ad(tmp_path / "evaluation.h5ad", counts[:12])
    if genes_of == "training":
        train = write_h5ad(tmp_path / "train.h5ad", counts[:, some], names)
    else:
        evaluation = write_h5ad(tmp_path / "evaluation.h5ad", counts[:12][:, some], names)
    meta = build_corpus(tmp_path / "corpus", [train], VOCABULARY, PLAIN, never=[evaluation])
    assert (meta["files"][0]["cells"], meta["files"][0]["evaluation_cells"]) == (18, 12)


def test_cells_that_share_too_few_genes_are_not_compared(tmp_path: Path) -> None:
    counts = tiny_counts(30, seed=3)
    evaluation = write_h5ad(tmp_path / "evaluation.h5ad", counts[:12, :15])
    meta = build_corpus(
        tmp_path / "corpus", [write_h5ad(tmp_path / "train.h5ad", counts)], VOCABULARY, PLAIN, never=[evaluation]
    )
    assert meta["files"][0]["evaluation_cells"] == 0


class TestLayouts:
    """The places in which public files store counts and gene names."""

    def cells(self, counts: np.ndarray) -> AnnData:
        cells = AnnData(sparse.csr_matrix(counts))
        cells.obs_names = [f"c{i}" for i in range(len(counts))]
        cells.var_names = [f"ENSG{i:011d}" for i in range(NUM_GENES)]
        cells.var["feature_name"] = [f"GENE{i}" for i in range(NUM_GENES)]
        cells.obs["donor_id"] = [f"D{i % 2}" for i in range(len(counts))]
        cells.obs["tissue"] = "lung"
        cells.obs["cell_type"] = ["T cell"] * len(counts)
        return cells

    @pytest.mark.parametrize("where", ["raw", "counts"])
    @pytest.mark.parametrize("kind", ["h5ad", "zarr"])
    def test_counts_are_found_next_to_normalised_values(self, tmp_path: Path, where: str, kind: str) -> None:
        counts = tiny_counts(30, seed=3)
        cells = self.cells(counts)
        if where == "raw":
            cells.raw = cells.copy()
        else:
            cells.layers["counts"] = cells.X.copy()
        cells.X = sparse.csr_matrix(np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).astype(np.float32))
        path = tmp_path / f"public.{kind}"
        cells.write_h5ad(path) if kind == "h5ad" else cells.write_zarr(path)
        meta = build_corpus(tmp_path / "corpus", [path], VOCABULARY, PLAIN)
        report = meta["files"][0]
        assert (report["cells"], report["matrix"], report["input"], report["genes_matched"]) == (
            30,
            where,
            "counts",
            120,
        )
        corpus = Corpus(tmp_path / "corpus")
        np.testing.assert_array_equal(corpus.obs["total"], counts.sum(1))
        assert corpus.obs.loc[1, ["tissue", "cell_type", "donor", "dataset"]].tolist() == [
            "lung",
            "T cell",
            "D1",
            "public",
        ]

    @pytest.mark.parametrize("dense", [False, True])
    def test_a_zarr_store_gives_the_corpus_of_the_h5ad_file(self, tmp_path: Path, *, dense: bool) -> None:
        cells = self.cells(tiny_counts(30, seed=3))
        cells.write_h5ad(tmp_path / "cells.h5ad")
        if dense:
            cells.X = cells.X.toarray()
        cells.write_zarr(tmp_path / "cells.zarr")
        corpora = []
        for kind in ("h5ad", "zarr"):
            build_corpus(tmp_path / kind, [tmp_path / f"cells.{kind}"], VOCABULARY, PLAIN)
            corpora.append(Corpus(tmp_path / kind))
        assert corpora[0].obs.equals(corpora[1].obs)
        assert corpora[0].meta["content"] == corpora[1].meta["content"]

    def test_a_named_layer_is_used_or_reported_missing(self, tmp_path: Path) -> None:
        cells = self.cells(tiny_counts(30, seed=3))
        cells.layers["spliced"] = cells.X * 2
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells.write_zarr(tmp_path / "cells.zarr")
        for kind in ("h5ad", "zarr"):
            path = tmp_path / f"cells.{kind}"
            meta = build_corpus(tmp_path / kind, [path], VOCABULARY, CorpusOptions(held_out=0.0, layer="spliced"))
            assert meta["files"][0]["matrix"] == "spliced"
            assert Corpus(tmp_path / kind).obs["total"].sum() == 2 * cells.X.sum()
            with pytest.raises(CorpusError, match=rf"cells\.{kind}: .*no .*absent"):
                build_corpus(tmp_path / "none", [path], VOCABULARY, CorpusOptions(layer="absent"))

    def test_a_store_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty.zarr").mkdir()
        with pytest.raises(CorpusError, match=r"empty\.zarr: The store cannot be read"):
            build_corpus(tmp_path / "corpus", [tmp_path / "empty.zarr"], VOCABULARY, PLAIN)
        self.cells(tiny_counts(30, seed=3)).write_zarr(tmp_path / "old.zarr")
        (tmp_path / "old.zarr" / "X" / ".zarray").write_text('{"filters": [{"id": "pickle"}]}')
        with pytest.raises(CorpusError, match=r"old\.zarr: .*stored as pickled objects"):
            build_corpus(tmp_path / "corpus", [tmp_path / "old.zarr"], VOCABULARY, PLAIN)


def test_filters_and_their_count(tmp_path: Path) -> None:
    counts = tiny_counts(30, seed=3)
    counts[4, 3:] = 0  # three known genes at most
    counts[7] = 0
    obs: dict[str, Sequence[object]] = {
        "class": ["singlet"] * 25 + ["doublet"] * 5,
        "is_duplicate": [i in (1, 2) for i in range(30)],
    }
    path = write_h5ad(tmp_path / "cells.h5ad", counts, obs=obs)
    options = CorpusOptions(keep={"class": "singlet", "absent column": "x"}, held_out=0.0)
    meta = build_corpus(tmp_path / "corpus", [path], VOCABULARY, options)
    assert (meta["files"][0]["cells"], meta["files"][0]["filtered"]) == (21, 9)
    left = [f"cells-{i}" for i in range(25) if i not in (1, 2, 4, 7)]
    assert Corpus(tmp_path / "corpus").obs["cell"].tolist() == left


def test_totals_of_a_selection_of_genes_come_from_their_column(tmp_path: Path) -> None:
    counts = tiny_counts(20, seed=3)
    totals = counts.sum(axis=1)
    whole = write_h5ad(tmp_path / "whole.h5ad", counts)
    part = write_h5ad(tmp_path / "part.h5ad", counts[:, :60], obs={"total_UMIs": totals.tolist()})
    build_corpus(tmp_path / "corpus", [whole, part], VOCABULARY, PLAIN)
    corpus = Corpus(tmp_path / "corpus")
    np.testing.assert_array_equal(corpus.obs["total"].to_numpy(), np.tile(totals, 2))
    for i in range(20):
        genes, values = corpus.cell(i)
        np.testing.assert_array_equal(corpus.cell(20 + i)[1], values[genes < 60])


def test_held_out_cells_are_a_share_chosen_by_content_and_seed(tmp_path: Path) -> None:
    counts = tiny_counts(1000, seed=3)
    forward = write_h5ad(tmp_path / "forward.h5ad", counts)
    backward = write_h5ad(tmp_path / "backward.h5ad", counts[::-1])

    def held_out(path: Path, seed: int) -> set[bytes]:
        out = tmp_path / f"{path.stem}-{seed}"
        build_corpus(out, [path], VOCABULARY, CorpusOptions(held_out=0.2, seed=seed))
        corpus = Corpus(out)
        assert len(corpus.train_rows) + len(corpus.held_out_rows) == 1000
        return {corpus.cell(int(row))[1].tobytes() for row in corpus.held_out_rows}

    chosen = held_out(forward, 0)
    assert 150 < len(chosen) < 250
    assert held_out(backward, 0) == chosen
    assert held_out(forward, 1) != chosen


def test_a_file_without_usable_cells_does_not_affect_the_others(tmp_path: Path) -> None:
    files = [
        write_h5ad(tmp_path / "poor.h5ad", tiny_counts(5, seed=1) * (np.arange(NUM_GENES) < 3)),
        write_h5ad(tmp_path / "rich.h5ad", tiny_counts(30, seed=2)),
    ]
    meta = build_corpus(tmp_path / "corpus", files, VOCABULARY, PLAIN)
    assert [(f["cells"], f["filtered"]) for f in meta["files"]] == [(0, 5), (30, 0)]
    assert len(Corpus(tmp_path / "corpus").batch(np.arange(30))) == 30


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_text("precious")
    with pytest.raises(CorpusError, match="exists already"):
        build_corpus(tmp_path / "corpus", write_two_files(tmp_path), VOCABULARY, PLAIN)
    assert (tmp_path / "corpus" / "mine").read_text() == "precious"


def test_no_cell_left_is_an_error_and_leaves_no_corpus(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "cells.h5ad", tiny_counts(10, seed=1))
    with pytest.raises(CorpusError, match="No cell is left"):
        build_corpus(tmp_path / "corpus", [path], VOCABULARY, PLAIN, never=[path])
    assert not (tmp_path / "corpus").exists()


def test_an_error_in_a_file_names_file_cell_and_gene(tmp_path: Path) -> None:
    counts = tiny_counts(10, seed=1)
    counts[6, 9] = -1
    files = [*write_two_files(tmp_path), write_h5ad(tmp_path / "bad.h5ad", counts)]
    with pytest.raises(CorpusError, match=r"bad\.h5ad: .*'GENE9' in cell 'bad-6' is negative"):
        build_corpus(tmp_path / "corpus", files, VOCABULARY, PLAIN)
    assert not (tmp_path / "corpus").exists()
    assert not (tmp_path / "corpus.partial").exists()


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    files = write_two_files(tmp_path)
    with files_of_at_most(20_000), pytest.raises(CorpusError, match=r"gene_index\.npy could not be written.*disk full"):
        build_corpus(tmp_path / "corpus", files, VOCABULARY, PLAIN)
    assert not list(tmp_path.glob("corpus*"))


@pytest.mark.parametrize("never", [False, True])
def test_a_missing_file_is_named(tmp_path: Path, *, never: bool) -> None:
    here, missing = write_h5ad(tmp_path / "here.h5ad", tiny_counts(30, seed=1)), tmp_path / "missing.h5ad"
    with pytest.raises(CorpusError, match=r"missing\.h5ad"):
        build_corpus(tmp_path / "c", [here if never else missing], VOCABULARY, PLAIN, never=[missing] if never else [])


def test_a_failed_build_does_not_block_the_next(tmp_path: Path) -> None:
    files = write_two_files(tmp_path)
    with pytest.raises(CorpusError):
        build_corpus(tmp_path / "corpus", [*files, tmp_path / "missing.h5ad"], VOCABULARY, PLAIN)
    build_corpus(tmp_path / "corpus", files, VOCABULARY, PLAIN)
    assert len(Corpus(tmp_path / "corpus")) == 300
