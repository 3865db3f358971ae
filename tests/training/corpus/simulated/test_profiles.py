from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.simulated.profiles import ProfileFile, ProfileTable, read_profiles, tissue_of
from tests.training.corpus.profile_files import tiny_profile, write_profiles
from tests.training.tiny import NUM_GENES, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


def read(path: Path, *, linear: bool = False, skip: tuple[str, ...] = ()) -> ProfileTable:
    return read_profiles(ProfileFile(path, linear=linear), VOCABULARY, min_genes=10, skip=skip)


def test_a_column_becomes_shares_in_vocabulary_order_with_unknown_genes_last(tmp_path: Path) -> None:
    index = pd.Index(["GENE7", "OLD2", "MT1G-AS9", "NOT-A-GENE", *(f"GENE{i}" for i in range(10, 20))], name="symbol")
    pd.DataFrame({"T cell": [4.0, 3.0, 1.0, 2.0, *[0.0] * 10]}, index=index).to_parquet(tmp_path / "p.parquet")
    table = read(tmp_path / "p.parquet")
    (profile,) = table.profiles(0)
    assert np.flatnonzero(profile.share).tolist() == [2, 7, NUM_GENES]
    np.testing.assert_allclose(profile.share[[2, 7, NUM_GENES]], [0.3, 0.4, 0.3])
    assert (table.gene_sets[0].genes_in, int(table.gene_sets[0].measured.sum())) == (14, 12)


def test_symbols_may_be_a_column(tmp_path: Path) -> None:
    path = write_profiles(tmp_path / "p.parquet", {"a": tiny_profile(1)})
    pd.read_parquet(path).reset_index().to_parquet(path)
    assert list(read(path).set_of) == ["a"]


def test_missing_values_are_genes_that_were_not_measured(tmp_path: Path) -> None:
    some = tiny_profile(1)
    some[:40] = np.nan
    path = write_profiles(tmp_path / "p.parquet", {"a": some, "b": tiny_profile(2), "c": some * 2})
    table = read(path)
    assert table.set_of == {"a": 0, "b": 1, "c": 0}
    assert [int(genes.measured.sum()) for genes in table.gene_sets] == [80, 120]
    assert not table.gene_sets[0].measured[:40].any()
    first, third = table.profiles(0)
    assert (first.name, third.name) == ("a", "c")
    np.testing.assert_allclose(first.share, third.share)


@pytest.mark.parametrize("column", ["var:T cell", "scVar_T", "nb_logit"])
def test_variances_and_parameters_are_skipped(tmp_path: Path, column: str) -> None:
    path = write_profiles(tmp_path / "p.parquet", {"a": tiny_profile(1), column: -tiny_profile(2)})
    table = read(path)
    assert "variance or a parameter" in table.skipped[column]
    # Rates of a negative binomial are no means.
    assert ("a" in table.skipped) == (column == "nb_logit")


def test_a_compressed_scale_is_skipped_unless_it_is_declared_linear(tmp_path: Path) -> None:
    genes = [f"GENE{i}" if i < NUM_GENES else f"other{i}" for i in range(4000)]
    random = np.random.default_rng(0)
    linear = random.lognormal(0, 2, (4000, 3))
    for name, values in (("cpm", linear), ("log2", np.log2(linear + 1))):
        pd.DataFrame(values, index=pd.Index(genes, name="symbol"), columns=list("abc")).to_parquet(tmp_path / name)
    assert read(tmp_path / "cpm").skipped == {}
    table = read(tmp_path / "log2")
    assert set(table.skipped) == set("abc") and not table.gene_sets
    assert "scale is not linear: the top gene has 0." in table.skipped["a"]
    assert read(tmp_path / "log2", linear=True).skipped == {}
    assert ProfileFile.parse("x.parquet:linear") == ProfileFile(Path("x.parquet"), linear=True)
    assert ProfileFile.parse("x.parquet") == ProfileFile(Path("x.parquet"))


def test_columns_with_few_genes_or_an_unwanted_name_are_skipped(tmp_path: Path) -> None:
    few = tiny_profile(1)
    few[5:] = np.nan
    few[0] = 1.0
    path = write_profiles(
        tmp_path / "p.parquet", {"few": few, "lung|unknown|n=3": tiny_profile(2), "b": tiny_profile(3)}
    )
    table = read(path, skip=("*|unknown|*",))
    assert list(table.set_of) == ["b"]
    assert table.skipped == {
        "few": "measures 5 known genes, fewer than 10",
        "lung|unknown|n=3": "matches the pattern '*|unknown|*'",
    }


@pytest.mark.parametrize(
    "value, message", [(-1.0, "has negative values"), (np.inf, "has infinite values"), (0.0, "has no value above 0")]
)
def test_a_column_that_is_no_profile_is_named(tmp_path: Path, value: float, message: str) -> None:
    bad = np.zeros(NUM_GENES) if value == 0 else tiny_profile(2)
    bad[3] = value
    path = write_profiles(tmp_path / "p.parquet", {"good": tiny_profile(1), "bad": bad})
    with pytest.raises(CorpusError, match=rf"p\.parquet: column 'bad' {message}"):
        read(path)


def test_a_file_that_is_no_table_of_profiles_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(CorpusError, match=r"p\.parquet is not a readable parquet"):
        read(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(CorpusError, match=r"p\.parquet is not a readable parquet"):
        read(path)
    pd.DataFrame({"a": [1.0, 2.0]}).to_parquet(path)
    with pytest.raises(CorpusError, match=r"p\.parquet has no index 'symbol'"):
        read(path)
    index = pd.Index(["GENE1", "GENE2"], name="symbol")
    pd.DataFrame({"a": ["x", "y"]}, index=index).to_parquet(path)
    with pytest.raises(CorpusError, match=r"p\.parquet: column 'a' does not hold numbers"):
        read(path)
    pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index(["mouse1", "mouse2"], name="symbol")).to_parquet(path)
    with pytest.raises(CorpusError, match=r"p\.parquet: The model knows 0 of the 2 gene names.*'mouse1'"):
        read(path)


@pytest.mark.parametrize(
    "column, tissue",
    [("Heart_HCA|Fibroblast", "heart"), ("peripheral blood:Z_2018|B|n=3", "peripheral blood"), ("NK", "stem")],
)
def test_the_tissue_is_read_from_the_name(column: str, tissue: str) -> None:
    assert tissue_of(column, "stem") == tissue
