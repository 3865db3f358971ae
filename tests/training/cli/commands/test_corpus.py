from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.training.corpus.reader import Corpus
from tests.training.cli.test_main import ok, one_line, run
from tests.training.corpus.profile_files import tiny_profile, write_profiles
from tests.training.tiny import tiny_vocabulary, write_two_files


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genes") / "genes.parquet"
    tiny_vocabulary().save(path)
    return path


def test_profiles_are_simulated_and_skipped_columns_named(tmp_path: Path, genes: Path) -> None:
    columns = {"Skin_X|T cell": tiny_profile(1), "Skin_X|unknown": tiny_profile(2), "var:T cell": tiny_profile(3)}
    profiles = write_profiles(tmp_path / "atlas.parquet", columns)
    result = ok(
        *("corpus", tmp_path / "corpus", *write_two_files(tmp_path / "files"), "--genes", genes, "--seed", 4),
        *("--profiles", f"{profiles}:linear", "--profile-cells", 7, "--profile-min-genes", 10),
        *("--profile-depth", "100,900", "--profile-dispersion", 0.2, "--skip-profiles", "*|unknown"),
    )
    lines = result.stdout.splitlines()
    assert lines[3].split(maxsplit=7) == ["atlas.parquet", "7", "120", "120", "0", "0", "0", "simulated, 1 profiles"]
    assert lines[4] == "simulated with 100 to 900 counts, dispersion 0.2"
    assert lines[5] == "atlas.parquet: skipped 1 columns (matches the pattern '*|unknown'): Skin_X|unknown"
    assert lines[6] == "atlas.parquet: skipped 1 columns (not expression but a variance or a parameter): var:T cell"
    assert lines[7].startswith("307 cells, 120 genes")
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.obs["total"][300:].between(50, 1200).all()


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "Name at least one file of cells, --profiles or --census"),
        (["x.h5ad", "--profile-cells", 5], "no effect without --profiles"),
        (["--profiles", "x", "--profile-depth", "5"], "LOW,HIGH"),
        (["--profiles", "x", "--profile-depth", "9,5"], "LOW,HIGH"),
    ],
)
def test_wrong_use_gets_one_line(tmp_path: Path, words: list[object], message: str) -> None:
    assert message in one_line(run("corpus", tmp_path / "corpus", *words), status=2)


def test_a_file_that_is_no_profile_is_named(tmp_path: Path, genes: Path) -> None:
    (tmp_path / "x.parquet").write_text("no parquet")
    line = one_line(run("corpus", tmp_path / "corpus", "--genes", genes, "--profiles", tmp_path / "x.parquet"))
    assert "x.parquet is not a readable parquet" in line
