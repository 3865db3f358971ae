from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from scpalm.training.corpus.vocabulary import build_vocabulary

HEADER = "symbol\tstatus\tlocus_group\tensembl_gene_id\tprev_symbol\talias_symbol\tdate_symbol_changed\n"
HGNC = HEADER + "".join(
    "\t".join((*row, *[""] * (7 - len(row)))) + "\n"
    for row in (
        ("CD3E", "Approved", "protein-coding gene", "ENSG00000000003", "", '"T3E|TiT3|SEPT1|PSEUDO1|112"'),
        ("SEPTIN1", "Approved", "protein-coding gene", "ENSG00000000001", "SEPT1|DIFF6", "", "2019-04-04"),
        ("QARS1", "Approved", "protein-coding gene", "ENSG00000000011", "QARS", "", "2019-07-15"),
        ("EPRS1", "Approved", "protein-coding gene", "ENSG00000000012", "QARS|EPRS", "", "2019-08-14"),
        ("PWWP3A", "Approved", "protein-coding gene", "ENSG00000000013", "MUM1|TIE", "", "2018-10-19"),
        ("IRF4", "Approved", "protein-coding gene", "ENSG00000000014", "MUM1", "", ""),
        ("OTHER", "Approved", "protein-coding gene", "ENSG00000000015", "TIE", "", "2019-01-01"),
        ("OLDNAME", "Approved", "non-coding RNA", "ENSG00000000005", "", ""),
        ("PSEUDO1", "Approved", "pseudogene", "ENSG00000000007", "", ""),
        ("GONE", "Entry Withdrawn", "protein-coding gene", "ENSG00000000009", "", ""),
        ("NOID", "Approved", "protein-coding gene", "", "", ""),
        ("COPY", "Approved", "other", "ENSG00000000003", "", ""),
    )
)
GENCODE = """ENSG00000000001.4,SEPTIN1
ENSG00000000003.2,CD3E
ENSG00000000005.1,NEWNAME
ENSG00000000007.1,PSEUDO1
ENSG00000000002.9,FRESH
ENSG00000000004.1,ENSG00000000004
ENSG00000000006.1,Y_RNA
ENSG00000000008.1,Y_RNA
ENSG00000000010.1,NOID
"""


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    hgnc, gencode = tmp_path / "hgnc.txt.gz", tmp_path / "gencode.csv"
    hgnc.write_bytes(gzip.compress(HGNC.encode()))
    gencode.write_text(GENCODE)
    return hgnc, gencode


def test_genes_are_from_hgnc_plus_new_gencode_ids(tables: tuple[Path, Path]) -> None:
    vocabulary = build_vocabulary(*tables)
    assert list(zip(vocabulary.ensembl_ids, vocabulary.symbols, strict=True)) == [
        ("ENSG00000000001", "SEPTIN1"),
        ("ENSG00000000002", "FRESH"),
        ("ENSG00000000003", "CD3E"),
        ("ENSG00000000005", "OLDNAME"),
        ("ENSG00000000011", "QARS1"),
        ("ENSG00000000012", "EPRS1"),
        ("ENSG00000000013", "PWWP3A"),
        ("ENSG00000000014", "IRF4"),
        ("ENSG00000000015", "OTHER"),
    ]


@pytest.mark.parametrize(
    "name, position",
    [
        ("SEPT1", 0),  # previous symbol
        ("DIFF6", 0),
        ("T3E", 2),  # alias, written in quotes
        ("NEWNAME", 3),  # GENCODE's newer name
        ("QARS", 4),  # two genes had it: the one that is QARS1 now
        ("EPRS", 5),
        ("MUM1", 6),  # the one that gave it up last
        ("TIE", -1),  # both gave it up lately
        ("112", -1),  # numbers are no names
        ("PSEUDO1", -1),  # the symbol of another gene, which is not in the vocabulary
        ("GONE", -1),
        ("Y_RNA", -1),  # one name of many genes
    ],
)
def test_aliases_lead_to_the_gene(tables: tuple[Path, Path], name: str, position: int) -> None:
    assert build_vocabulary(*tables).find(name)[0] == position


def test_a_table_without_a_column_is_refused(tables: tuple[Path, Path]) -> None:
    hgnc, gencode = tables
    hgnc.write_bytes(gzip.compress(HGNC.replace("prev_symbol", "previous").encode()))
    with pytest.raises(ValueError, match="lacks the column 'prev_symbol'"):
        build_vocabulary(hgnc, gencode)
