from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scpalm.model.io.cells import open_cells
from scpalm.training.corpus.census.blocks import Download, download
from scpalm.training.corpus.census.reader import CensusQuery, CensusReader
from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.reader import Corpus
from tests.training.cli.test_main import ok, one_line, run
from tests.training.corpus.census.census_files import (
    FEWER_GENES,
    NUM_CELLS,
    census_cells,
    write_census,
    write_experiment,
)
from tests.training.tiny import NUM_GENES, tiny_vocabulary

pytest.importorskip("tiledbsoma", reason="needs the extra 'census'")

PRIMARY = "is_primary_data == True"


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_census(tmp_path_factory.mktemp("soma") / "census")


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genes") / "genes.parquet"
    tiny_vocabulary().save(path)
    return path


def query(census: Path, value_filter: str = PRIMARY, **options: object) -> CensusQuery:
    return CensusQuery(value_filter, uri=str(census), **options)  # type: ignore[arg-type]


def fetch(census: Path, folder: Path, value_filter: str = PRIMARY, **options: object) -> Download:
    return download(query(census, value_filter, **options), folder, block_cells=32)


def same_files(one: Path, other: Path) -> bool:
    paths = [path.relative_to(one) for path in sorted(one.rglob("*.*"))]
    return paths == [path.relative_to(other) for path in sorted(other.rglob("*.*"))] and all(
        (one / path).read_bytes() == (other / path).read_bytes() for path in paths
    )


class TestCommand:
    def test_makes_a_corpus_of_the_cells_that_pass_the_filter(self, census: Path, genes: Path, tmp_path: Path) -> None:
        where = 'tissue_general == "lung" and is_primary_data == True'
        result = ok("corpus", tmp_path / "corpus", "--census", where, "--census-uri", census, "--genes", genes)
        cells = census_cells()
        wanted = (cells.obs["tissue_general"] == "lung") & cells.obs["is_primary_data"]
        corpus = Corpus(tmp_path / "corpus")
        assert len(corpus) == wanted.sum()
        assert f"census {census}, lung: {wanted.sum()} of {wanted.sum()} cells" in result.stdout
        assert not (tmp_path / "corpus.census").exists()
        for row, obs in corpus.obs.iterrows():
            number = int(obs["cell"])
            expected = cells.obs.iloc[number]
            assert obs[["dataset", "tissue", "cell_type", "cell_type_id", "donor"]].tolist() == [
                *expected[["dataset_id", "tissue_general", "cell_type", "cell_type_ontology_term_id", "donor_id"]]
            ]
            index, value = corpus.cell(int(row))
            counts = np.zeros(NUM_GENES)
            counts[index] = np.expm1(value.astype(np.float64)) * obs["total"] / 1e4
            np.testing.assert_allclose(counts, cells.X[number].toarray()[0], atol=1e-3)
            assert obs["total"] == cells.X[number].sum()

    def test_genes_that_a_data_set_did_not_measure_are_missing(self, census: Path, genes: Path, tmp_path: Path) -> None:
        ok("corpus", tmp_path / "corpus", "--census", PRIMARY, "--census-uri", census, "--genes", genes)
        corpus = Corpus(tmp_path / "corpus")
        measured = corpus.measured[corpus.obs["file"]]
        fewer = corpus.obs["dataset"].to_numpy() == "d-two"
        assert measured[~fewer].all()
        assert measured[fewer, :FEWER_GENES].all() and not measured[fewer, FEWER_GENES:].any()

    def test_most_cells_are_balanced_by_tissue(self, census: Path, genes: Path, tmp_path: Path) -> None:
        words = ("--census", PRIMARY, "--census-uri", census, "--genes", genes, "--max-cells", 60)
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            ok("corpus", tmp_path / name, *words, "--seed", seed)
        a, c = Corpus(tmp_path / "a"), Corpus(tmp_path / "c")
        assert a.obs["tissue"].value_counts().to_dict() == {"blood": 24, "lung": 24, "eye": 12}
        assert same_files(tmp_path / "a", tmp_path / "b")
        assert set(a.obs["cell"]) != set(c.obs["cell"])

    @pytest.mark.parametrize(
        "words, message",
        [
            (("--max-cells", 5), "no effect without --census"),
            (("--census-uri", "x"), "no effect without --census"),
        ],
    )
    def test_options_without_effect_are_refused(self, tmp_path: Path, words: tuple[object, ...], message: str) -> None:
        assert message in one_line(run("corpus", tmp_path / "corpus", "x.h5ad", *words), status=2)

    def test_an_existing_corpus_is_refused_before_the_download(self, census: Path, tmp_path: Path) -> None:
        (tmp_path / "corpus").mkdir()
        line = one_line(run("corpus", tmp_path / "corpus", "--census", PRIMARY, "--census-uri", census))
        assert "exists already" in line
        assert not (tmp_path / "corpus.census").exists()


class TestDownload:
    def test_a_killed_download_goes_on_at_the_next_block(
        self, census: Path, genes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = f"""
import os, signal
from pathlib import Path
from scpalm.training.corpus.census.blocks import download
from scpalm.training.corpus.census.reader import CensusQuery
blocks = []
def progress(name, cells):
    blocks.append(name)
    if len(blocks) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
download(CensusQuery({PRIMARY!r}, uri={str(census)!r}), Path({str(tmp_path / "corpus.census")!r}), progress)
"""
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
        assert killed.returncode == -signal.SIGKILL
        # Three data sets, one block each.
        folder = tmp_path / "corpus.census"
        assert sorted(path.name for path in folder.glob("*.h5ad")) == ["census-00000.h5ad", "census-00001.h5ad"]
        (folder / "census-00002.h5ad.partial").write_bytes(b"half a file")
        read: list[str] = []
        block = CensusReader.block

        def counting(self: CensusReader, joinid: np.ndarray, dataset: str) -> object:
            read.append(dataset)
            return block(self, joinid, dataset)

        monkeypatch.setattr(CensusReader, "block", counting)
        words = ("--census", PRIMARY, "--census-uri", census, "--genes", genes)
        ok("corpus", tmp_path / "corpus", *words)
        assert read == ["d-two"]  # data sets are in the order of their names
        ok("corpus", tmp_path / "whole", *words)
        assert same_files(tmp_path / "corpus", tmp_path / "whole")

    def test_blocks_have_a_limited_number_of_cells_of_one_data_set(self, census: Path, tmp_path: Path) -> None:
        found = fetch(census, tmp_path / "x")
        assert len(found.files) == 9  # 70 cells of each data set
        for path in found.files:
            with open_cells(path) as file:
                dataset = file.obs_column("dataset_id")
                assert dataset is not None
                assert 0 < len(dataset) <= 32 and len(set(map(str, dataset))) == 1

    def test_another_query_does_not_continue_it(self, census: Path, tmp_path: Path) -> None:
        fetch(census, tmp_path / "x")
        with pytest.raises(CorpusError, match=r"unfinished download with another max_cells \(None\)"):
            fetch(census, tmp_path / "x", max_cells=10)

    def test_an_experiment_alone_measures_all_genes(self, tmp_path: Path) -> None:
        found = fetch(write_experiment(tmp_path / "soma"), tmp_path / "x", max_cells=NUM_CELLS)
        assert sum(found.origin["available"].values()) == 210
        with open_cells(found.files[-1]) as file:
            assert next(file.chunks(10)).num_genes == NUM_GENES

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"value_filter": 'tissue_general == "skin"'}, "No cell of .* passes the filter"),
            ({"value_filter": 'organ == "skin"'}, "organ"),
            ({"value_filter": "tissue_general =="}, "parse"),
            ({"layer": "normalized"}, "no counts 'normalized' in X. There is: raw"),
            ({"uri": "/nowhere"}, "/nowhere: "),
        ],
    )
    def test_errors_name_the_census(self, census: Path, tmp_path: Path, change: dict[str, str], message: str) -> None:
        with pytest.raises(CorpusError, match=message):
            download(replace(query(census), **change), tmp_path / "x")  # type: ignore[arg-type]

    @pytest.mark.parametrize("package, uri", [("tiledbsoma", "x"), ("cellxgene_census", None)])
    def test_a_missing_package_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, uri: str | None
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CorpusError, match=rf"needs the package {package.replace('_', '-')}\. .*scpalm\[census\]"):
            download(CensusQuery(PRIMARY, uri=uri), tmp_path / "x")
