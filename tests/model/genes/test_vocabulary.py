from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.model.errors import BundleError
from scpalm.model.genes.vocabulary import Vocabulary
from tests.model.small_genes import small_vocabulary

CD3E, CD8A, MS4A1, HLA_A = range(4)


@pytest.mark.parametrize(
    "name, position, how",
    [
        ("ENSG00000000001", CD3E, "ensembl"),
        ("ENSG00000000001.14", CD3E, "ensembl"),  # the version is not part of the id
        (" CD3E ", CD3E, "symbol"),
        ("ENSG00000000001.14_PAR_Y", CD3E, "ensembl"),
        ("ENSG00000000001.14_2", CD3E, "ensembl"),  # lifted from another assembly
        ("T3E", CD3E, "alias"),
        ("OLDCD8", CD8A, "previous"),
        ("FORMER", CD8A, "previous"),  # also an alias of CD3E: the previous symbol wins
        ("CD20", MS4A1, "alias"),
        ("CD8A", CD8A, "symbol"),  # also listed as an alias of CD3E: the symbol wins
        ("HLA-A", HLA_A, "symbol"),
        ("SHARED", -1, ""),  # an alias of two genes means neither
        ("ENSG00000099999", -1, ""),
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


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    vocabulary = small_vocabulary()
    vocabulary.save(tmp_path / "genes.parquet")
    loaded = Vocabulary.load(tmp_path / "genes.parquet")
    assert len(loaded) == len(vocabulary)
    assert loaded.ensembl_ids == vocabulary.ensembl_ids
    assert loaded.symbols == vocabulary.symbols
    assert loaded.aliases == vocabulary.aliases
    assert loaded.previous == vocabulary.previous
    assert loaded.find("T3E") == (CD3E, "alias")


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_an_unreadable_table_is_a_bundle_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "genes.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"genes\.parquet"):
        Vocabulary.load(path)
