from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matching.alignment import Alignment
from scpalm.model.genes.vocabulary import Vocabulary
from tests.model.small_genes import FILLER, fillers, small_vocabulary

CD3E, CD8A, MS4A1, HLA_A = range(4)


def aligned(genes: Sequence[str], ids: Sequence[str] | None = None, **more: Any) -> Alignment:
    return align(small_vocabulary(), GeneColumns(genes, ids, **more))


def test_coverage_counts_columns_by_how_they_were_found() -> None:
    genes = [*fillers(10), "CD3E", "T3E", "ENSG00000000003.2", "unknown_gene", "SHARED"]
    alignment = aligned(genes)
    coverage = alignment.coverage
    assert (coverage.genes_in, coverage.genes_matched, coverage.genes_of_model) == (15, 12, 12)
    assert (coverage.by_symbol, coverage.by_alias, coverage.by_ensembl) == (11, 0, 1)
    assert coverage.unmatched == ("T3E", "unknown_gene", "SHARED")
    np.testing.assert_array_equal(alignment.target, [*range(4, 14), CD3E, -1, MS4A1, -1, -1])
    assert alignment.target.dtype == np.int32
    np.testing.assert_array_equal(np.flatnonzero(alignment.gene_set.measured), [CD3E, MS4A1, *range(4, 14)])
    assert coverage.as_dict()["genes_matched"] == 12


def test_a_known_ensembl_id_takes_precedence_over_the_name() -> None:
    genes = [*fillers(10), "CD3E", "CD8A"]
    ids = [""] * 10 + ["ENSG00000000003", "ENSG00000088888"]
    alignment = aligned(genes, ids)
    assert alignment.target[10] == MS4A1
    assert alignment.target[11] == CD8A
    assert alignment.coverage.by_ensembl == 1


def test_only_the_first_twenty_unknown_names_are_listed() -> None:
    names = [f"unknown{i}" for i in range(30)]
    coverage = aligned([*fillers(20), *names]).coverage
    assert coverage.unmatched == tuple(names[:20])


def refused(genes: list[str], ensembl_ids: list[str] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        aligned(genes, ensembl_ids)
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
    assert aligned(["CD3E", "CD20", "unknown_gene"]).coverage.genes_matched == 2


def target(name: str, *others: str, **more: Any) -> int:
    """The gene of a column among twenty that are known."""
    return int(aligned([*fillers(20), *others, name], **more).target[-1])


@pytest.mark.parametrize(
    "name, kind",
    [
        ("HLA.A", "dots"),
        ("HLA_A", "dots"),
        ("HLA\u2011A", "characters"),
        ("HLA-A\u200b", "characters"),
        ('"HLA-A"', "characters"),
        ("HLA-A-2", "repeated name"),
        ("HLA-A.1", "repeated name"),
        ("HLA.A.1", "repeated name"),
        ("HLA-A--1", "repeated name"),
        ("HLA-A_17", "repeated name"),
        ("GRCh38_HLA-A", "prefix"),
        ("hg19_HLA.A", "prefix"),
        ("GRCh38______HLA-A", "prefix"),
        ("HLA-A_ENSG00000000004", "id within the name"),
        ("ENSG00000000004.3:HLA-A", "id within the name"),
        ("HLA-A|3105", "part of the name"),
        ("HLA-A|NM_002116|Reference_end", "part of the name"),
        ("HLA-A_ENSG00000099999", "part of the name"),
    ],
)
def test_names_are_repaired_and_the_repair_is_counted(name: str, kind: str) -> None:
    alignment = aligned([*fillers(20), name])
    assert alignment.target[-1] == HLA_A
    assert alignment.coverage.repaired == {kind: 1}


@pytest.mark.parametrize("name", ["NA", "nan", "None", "", "-", "CD3E|MS4A1", "CD3E,CD8A", "TWICE"])
def test_names_that_mean_nothing_or_several_genes_are_unknown(name: str) -> None:
    assert target(name) == -1


def test_a_previous_symbol_of_two_genes_is_the_one_without_its_own_column() -> None:
    assert target("TWICE", "CD8A") == MS4A1
    assert target("TWICE", "CD8A", "MS4A1") == -1


def test_another_name_is_not_added_to_a_gene_that_has_its_own_column() -> None:
    alignment = aligned([*fillers(20), "CD20", "MS4A1"])
    assert alignment.target[-2:].tolist() == [-1, MS4A1]
    assert "'CD20'" in alignment.coverage.notes[0]


def test_old_and_new_symbols_of_merged_annotations_are_added() -> None:
    number = 120
    ids, symbols = [f"ENSG{i:011d}" for i in range(number)], [f"NEW{i}" for i in range(number)]
    previous = [[f"OLD{i}"] for i in range(number)]
    vocabulary = Vocabulary(ids, symbols, [[]] * number, previous)
    names = GeneColumns([*symbols, *(names[0] for names in previous)])
    assert align(vocabulary, names).target.tolist() == [*range(number), *range(number)]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("ERCC-00002", "spike-in"),
        ("__no_feature", "read statistics"),
        ("N_unmapped", "read statistics"),
        ("chr1:1000-1500", "peak"),
        ("chrX_1000_1500", "peak"),
        ("HTO_1", "hashtag"),
        ("Hashtag3", "hashtag"),
        ("CD4_TotalSeqB", "antibody"),
        ("ADT_CD8a", "antibody"),
        ("IgG1_control", "antibody"),
        ("CD4:SK3|CD4|AHS0032|pAbO", "antibody"),
        ("sgRNA_TP53_1", "guide"),
        ("non-targeting-03", "guide"),
        ("NegControlProbe_00031", "control probe"),
        ("BLANK_0012", "control probe"),
        ("UnassignedCodeword_0003", "control probe"),
        ("nCount_RNA", "metadata column"),
        ("percent.mt", "metadata column"),
        ("EGFP", "reporter"),
        ("tdTomato", "reporter"),
        ("AluSx", "transposable element"),
        ("L1HS:L1:LINE", "transposable element"),
        ("ENSMUSG00000000001", "gene of another species"),
        ("mm10_Cd3e", "gene of another species"),
        ("ERCC-00002|17", "spike-in"),
        ("GRCh38_ERCC-00002", "spike-in"),
    ],
)
def test_columns_that_are_no_genes_are_left_out_by_name(name: str, reason: str) -> None:
    alignment = aligned([*fillers(20), name])
    assert alignment.coverage.left_out == {reason: 1}
    assert alignment.left_out.tolist() == [False] * 20 + [True]
    assert alignment.coverage.num_extra == 1


@pytest.mark.parametrize("name", ["RP11-34P13.7", "AL627309.1", "LINC01128", "MT-TL1", "TRBV6-5", "IGKV1-5", "Y_RNA"])
def test_unknown_genes_are_not_left_out(name: str) -> None:
    assert not aligned([*fillers(20), name]).coverage.left_out


@pytest.mark.parametrize("kind", ["Antibody Capture", "Peaks", "CRISPR Guide Capture", "Custom", "something else"])
def test_columns_of_another_feature_type_are_left_out(kind: str) -> None:
    kinds = ["Gene Expression"] * 20 + [kind]
    alignment = aligned([*fillers(20), "MS4A1"], kinds=kinds)
    assert alignment.left_out[-1] and alignment.target[-1] == -1


def test_types_of_genes_are_no_reason_to_leave_them_out() -> None:
    kinds = ["protein_coding"] * 10 + ["lncRNA"] * 11
    assert not aligned([*fillers(20), "MS4A1"], kinds=kinds).left_out.any()


def test_filtered_genes_were_not_measured() -> None:
    alignment = aligned([*fillers(20), "MS4A1"], filtered=np.array([False] * 20 + [True]))
    assert not alignment.gene_set.measured[MS4A1]


def test_ids_that_contradict_the_names_are_refused() -> None:
    vocabulary = small_vocabulary()
    with pytest.raises(InputError) as caught:
        aligned(vocabulary.symbols, vocabulary.ensembl_ids[1:] + vocabulary.ensembl_ids[:1])
    assert caught.value.code == "ids-contradict-names"


def test_of_columns_with_the_same_id_one_is_the_gene_of_its_name() -> None:
    genes, ids = [*fillers(20), "CD3E", "CD8A"], [""] * 20 + ["ENSG00000000001"] * 2
    assert aligned(genes, ids).target[-2:].tolist() == [CD3E, CD8A]


def test_mitochondrial_genes_of_refseq_are_recognised_together() -> None:
    vocabulary = small_vocabulary()
    names = ["MT-ND1", "MT-ND2", "MT-CO1", "MT-CYB"]
    made = type(vocabulary)(
        [*vocabulary.ensembl_ids, *(f"ENSG00000002{i:03d}" for i in range(4))],
        [*vocabulary.symbols, *names],
        [*vocabulary.aliases, *([[]] * 4)],
    )
    assert align(made, GeneColumns([*fillers(20), "ND1", "ND2", "COX1", "CYTB"])).target[-4:].tolist() == [
        44,
        45,
        46,
        47,
    ]
    assert align(made, GeneColumns([*fillers(20), "COX1"])).target[-1] == -1


def test_unspliced_counts_next_to_spliced_ones_are_the_same_gene() -> None:
    names = [name + mark for name in ["CD3E", "CD8A", *fillers(20)] for mark in ("", "-U", "-A")]
    assert aligned(names).target[:6].tolist() == [CD3E] * 3 + [CD8A] * 3


@pytest.mark.parametrize(
    "name", ["CD8A_x", "CD8A_y", "CD8A_left", "b'CD8A'", 'b"CD8A"', "CD8A..925.", "HLA.A..3105.", "HLA-A_y"]
)
def test_names_after_merges_and_prints_are_read(name: str) -> None:
    assert aligned([*fillers(20), name]).target[-1] == (CD8A if "CD8A" in name else 3)


def test_two_columns_of_a_gene_from_two_tables_are_refused() -> None:
    error = refused([f"GENE{number}{ending}" for number in range(10) for ending in ("_x", "_y")])
    assert (error.code, error.gene) == ("merged-tables", "GENE0_x")


@pytest.mark.parametrize("ending", ["_RNA", "-1", ".1", "|hg38"])
def test_an_ending_of_all_names_is_removed(ending: str) -> None:
    names = ["CD3E", "CD8A", *fillers(20)]
    found = aligned([name + ending for name in names])
    assert found.target.tolist() == aligned(names).target.tolist()


def test_exons_and_introns_add_up_to_the_gene() -> None:
    names = [f"GENE{number}{mark}" for number in range(10) for mark in ("_exon", "_intron")]
    assert aligned(names).coverage.genes_of_model == 10
    # In a whole annotation this is a separate transcript.
    assert aligned([*fillers(20), "CD8A_intron"]).target[-1] == -1


def test_dates_that_cannot_be_restored_are_reported() -> None:
    assert "Excel" in aligned([*fillers(20), "2-Mar"]).coverage.notes[0]


def test_genes_as_rows_are_reported() -> None:
    with pytest.raises(InputError) as caught:
        aligned(["AAACCTG-1", "AAACGGG-1", "AAAGATG-1"], cells=["CD3E", "CD8A", "MS4A1", "what"])
    assert caught.value.code == "transposed"


@pytest.mark.parametrize(
    "names, word",
    [
        ([f"ENST{i:011d}" for i in range(30)], "transcripts"),
        ([f"{i}_at" for i in range(30)], "microarray"),
        ([str(i) for i in range(30)], "Entrez"),
        ([f"gene{i}" for i in range(30)], "small letters"),
    ],
)
def test_names_of_another_kind_are_reported(names: list[str], word: str) -> None:
    error = refused(names)
    assert word in f"{error.detail} {error.hint}"
