"""Build the gene vocabulary from the HGNC complete set and a GENCODE table of ids and names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from scpalm.model.genes.vocabulary import Vocabulary

HGNC_COLUMNS = ("symbol", "status", "locus_group", "ensembl_gene_id", "prev_symbol", "alias_symbol")
# Pseudogenes are left out: most of their reads come from the parent gene, and they would double the tables.
LOCUS_GROUPS = ("protein-coding gene", "non-coding RNA", "other")


def build_vocabulary(hgnc: Path, gencode: Path) -> Vocabulary:
    """Approved HGNC genes with an Ensembl id, plus genes that GENCODE names and HGNC does not list yet.

    Args:
        hgnc: ``hgnc_complete_set.txt[.gz]``, tab-separated.
        gencode: two columns without header, Ensembl id and name.

    Returns:
        About 30 thousand genes, sorted by Ensembl id. Current GENCODE names, previous symbols and aliases are aliases.

    Raises ValueError when a table lacks a column.
    """
    table = pd.read_csv(hgnc, sep="\t", dtype=str, keep_default_na=False)
    missing = [name for name in HGNC_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{hgnc} lacks the column '{missing[0]}'. Give HGNC's complete set, tab-separated.")
    names = pd.read_csv(gencode, header=None, names=["id", "name"], dtype=str, keep_default_na=False)
    current = dict(zip(names["id"].str.partition(".")[0], names["name"], strict=True))
    approved = table[(table.status == "Approved") & (table.ensembl_gene_id != "")]
    known_ids = set(approved.ensembl_gene_id)
    known_names = set(table.symbol)
    approved = approved[approved.locus_group.isin(LOCUS_GROUPS)].drop_duplicates("ensembl_gene_id")
    genes: dict[str, tuple[str, list[str]]] = {}
    for row in approved.itertuples():
        other = [part for text in (row.prev_symbol, row.alias_symbol) for part in _split(text)]
        newest = current.get(row.ensembl_gene_id, "")
        if newest and not newest.startswith("ENSG"):
            other.insert(0, newest)
        genes[row.ensembl_gene_id] = (row.symbol, [n for n in dict.fromkeys(other) if n != row.symbol])
    copies = Counter(current.values())
    for gene_id, name in current.items():
        named = bool(name) and not name.startswith("ENSG") and copies[name] == 1
        if named and gene_id not in known_ids and name not in known_names:
            genes[gene_id] = (name, [])
    order = sorted(genes)
    return Vocabulary(order, [genes[i][0] for i in order], [genes[i][1] for i in order])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.strip('"').split("|") if part.strip()]
