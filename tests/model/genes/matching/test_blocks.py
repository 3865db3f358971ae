"""Antibodies, guides and genes of viruses among the genes, in files without a column of feature types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matching.blocks import is_protein, viral_columns
from scpalm.model.genes.prepare import Preparer
from scpalm.model.io.cells import open_cells
from tests.model.small_genes import cell_counts, fillers, matrix_of, small_vocabulary

VOCABULARY = small_vocabulary()
RNA = ["CD3E", "CD8A", "MS4A1", "HLA-A", *fillers(30)]
CELLS = Path(__file__).parents[5] / "shared" / "data" / "cells"


def left_out(names: list[str]) -> list[str]:
    found = align(VOCABULARY, GeneColumns(names))
    return [names[column] for column in np.flatnonzero(found.left_out)]


@pytest.mark.parametrize("first", [True, False])
def test_antibodies_next_to_the_genes_are_left_out_with_those_named_like_genes(first: bool) -> None:
    antibodies = ["CD3", "CD8A", "CD16", "CD45RA", "IgG1", "HLA-DR", "CD4_RPA-T4"]
    names = antibodies + RNA if first else RNA + antibodies
    assert left_out(names) == antibodies
    coverage = align(VOCABULARY, GeneColumns(names)).coverage
    assert coverage.left_out == {"antibody": 7} and coverage.genes_of_model == len(RNA)


@pytest.mark.parametrize("names", [["CD16"], ["CD8"], ["CD8A-1", "GENE3-1"], ["XIST_intron"]])
def test_single_names_prove_nothing(names: list[str]) -> None:
    assert left_out(RNA + names) == []


def test_antibodies_alone_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        align(VOCABULARY, GeneColumns(["CD3", "CD8A", "CD16", "CD19", "CD45RA", "GENE3"]))
    assert (caught.value.code, caught.value.gene) == ("antibodies", "CD3")


def test_columns_that_outweigh_the_genes_whose_names_they_have_are_refused() -> None:
    names = [*RNA, "CD3E-1", "CD8A-1", "MS4A1-1"]
    counts = cell_counts(6, len(names), depth=200)
    Preparer(VOCABULARY, names).prepare(matrix_of(counts, names))
    counts[:, -3:] = 20 * counts[:, :3].sum() + 100
    with pytest.raises(InputError) as caught:
        Preparer(VOCABULARY, names).prepare(matrix_of(counts, names))
    assert caught.value.code == "repeated-genes" and "CD3E-1" in str(caught.value)
    columns = GeneColumns(names, kinds=["Gene Expression"] * len(RNA) + ["Antibody Capture"] * 3)
    assert Preparer(VOCABULARY, columns).prepare(matrix_of(counts, names)).coverage.left_out == {"antibody": 3}


def test_guides_are_left_out_by_sequence_by_controls_and_by_number() -> None:
    assert left_out(["GENE1_ACGTTGCAACGTTGCAACGT", *RNA]) == ["GENE1_ACGTTGCAACGTTGCAACGT"]
    for guides in (["GENE1_1", "GENE2_1", "NT_1", "NT_2"], ["GENE1-1", "GENE1-2", "GENE2-1", "GENE2-2"]):
        assert left_out(RNA + guides) == guides


def test_genes_of_a_virus_are_left_out_if_there_are_several() -> None:
    influenza = ["PB2", "PB1", "PA", "NP", "NA", "M1"]
    assert left_out([*influenza, *RNA]) == influenza
    assert left_out(["PA", "NP", "NA", *RNA]) == []
    assert left_out([*RNA, "SARS2_N", "scov2_S", "NC_045512.2"]) == ["SARS2_N", "scov2_S", "NC_045512.2"]
    # TAT is a human gene, too: its first column is that.
    assert viral_columns(["TAT", "GAG", "POL", "ENV", "TAT", "REV"], [1, 2, 3, 5]) == [1, 2, 3, 4, 5]


@pytest.mark.skipif(not CELLS.is_dir(), reason="needs ../shared/data")
def test_names_of_real_genes_are_none_of_proteins() -> None:
    found: set[str] = set()
    for path in sorted(CELLS.glob("*/*.h5ad"))[::6]:
        with open_cells(path) as source:
            found |= {name for name in source.columns.names if is_protein(name) and not name.startswith(("CD", "TCR"))}
    assert not found
