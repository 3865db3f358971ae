from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scpalm.model.errors import BundleError, InputError
from scpalm.model.genes.vocabulary import Vocabulary
from tests.model.small_genes import FILLER, fillers, small_vocabulary

CD3E, CD8A, MS4A1, HLA_A = range(4)


@pytest.mark.parametrize(
    "name, position, how",
    [
        ("ENSG00000000001", CD3E, "ensembl"),
        ("ENSG00000000001.14", CD3E, "ensembl"),  # the version is not part of the id
        (" CD3E ", CD3E, "symbol"),
        ("T3E", CD3E, "alias"),
        ("CD20", MS4A1, "alias"),
        ("CD8A", CD8A, "symbol"),  # also listed as an alias of CD3E: the symbol wins
        ("CD8A-1", CD8A, "alias"),  # var_names_make_unique
        ("HLA-A", HLA_A, "symbol"),
        ("HLA-A-2", HLA_A, "alias"),
        ("HLA-2", -1, ""),
        ("SHARED", -1, ""),  # an alias of two genes means neither
        ("ENSG00000099999", -1, "ensembl"),
        ("ENSG1", -1, ""),
        ("cd3e", -1, ""),
        ("", -1, ""),
    ],
)
def test_a_name_finds_its_gene(name: str, position: int, how: str) -> None:
    found, by = small_vocabulary().find(name)
    assert found == position
    assert by == how


def test_a_previous_symbol_listed_twice_for_one_gene_is_not_ambiguous() -> None:
    vocabulary = Vocabulary(["ENSG00000000001", "ENSG00000000002"], ["A", "B"], [["X", "X"], []])
    assert vocabulary.find("X") == (0, "alias")


def test_coverage_counts_columns_by_how_they_were_found() -> None:
    genes = [*fillers(10), "CD3E", "T3E", "ENSG00000000003.2", "unknown_gene", "SHARED"]
    alignment = small_vocabulary().align(genes)
    coverage = alignment.coverage
    assert (coverage.genes_in, coverage.genes_matched, coverage.genes_of_model) == (15, 13, 12)
    assert (coverage.by_symbol, coverage.by_alias, coverage.by_ensembl) == (11, 1, 1)
    assert coverage.unmatched == ("unknown_gene", "SHARED")
    np.testing.assert_array_equal(alignment.target, [*range(4, 14), CD3E, CD3E, MS4A1, -1, -1])
    assert alignment.target.dtype == np.int32
    np.testing.assert_array_equal(np.flatnonzero(alignment.gene_set.measured), [CD3E, MS4A1, *range(4, 14)])
    assert coverage.as_dict()["genes_matched"] == 13


def test_a_known_ensembl_id_takes_precedence_over_the_name() -> None:
    genes = [*fillers(10), "CD3E", "CD8A"]
    ids = [""] * 10 + ["ENSG00000000003", "ENSG00000088888"]
    alignment = small_vocabulary().align(genes, ids)
    assert alignment.target[10] == MS4A1
    assert alignment.target[11] == CD8A
    assert alignment.coverage.by_ensembl == 1


def test_only_the_first_twenty_unknown_names_are_listed() -> None:
    names = [f"unknown{i}" for i in range(30)]
    coverage = small_vocabulary().align([*fillers(20), *names]).coverage
    assert coverage.unmatched == tuple(names[:20])


def refused(genes: list[str], ensembl_ids: list[str] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        small_vocabulary().align(genes, ensembl_ids)
    assert caught.value.field == "genes"
    return caught.value


def test_mouse_symbols_are_refused() -> None:
    error = refused([f"Gene{i}" for i in range(FILLER)] + ["Cd3e"])
    assert error.code == "wrong-species"
    assert error.gene == "Gene0"
    assert "orthologues" in error.hint


def test_mouse_ensembl_ids_are_refused() -> None:
    ids = [f"ENSMUSG{i:011d}" for i in range(30)]
    assert refused(ids).code == "wrong-species"
    assert refused([f"gene {i}" for i in range(30)], ids).code == "wrong-species"


def test_no_gene_and_too_few_genes() -> None:
    assert refused([f"probe_{i}" for i in range(30)]).code == "no-known-gene"
    error = refused([*fillers(3), *(f"probe_{i}" for i in range(30))])
    assert error.code == "too-few-genes"
    assert error.gene == "probe_0"
    assert "3 of the 33" in error.detail
    # More than ten genes match, but only one in a hundred: the file uses other names.
    assert refused([*fillers(15), *(f"probe_{i}" for i in range(1500))]).code == "too-few-genes"


def test_a_small_panel_of_known_genes_is_fine() -> None:
    assert small_vocabulary().align(["CD3E", "CD20", "unknown_gene"]).coverage.genes_matched == 2


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    vocabulary = small_vocabulary()
    vocabulary.save(tmp_path / "genes.parquet")
    loaded = Vocabulary.load(tmp_path / "genes.parquet")
    assert len(loaded) == len(vocabulary)
    assert loaded.ensembl_ids == vocabulary.ensembl_ids
    assert loaded.symbols == vocabulary.symbols
    assert loaded.aliases == vocabulary.aliases
    assert loaded.find("T3E") == (CD3E, "alias")


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_an_unreadable_table_is_a_bundle_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "genes.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"genes\.parquet"):
        Vocabulary.load(path)
