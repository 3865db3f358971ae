"""Build the gene vocabulary from the HGNC complete set and a GENCODE table of ids and names."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from scpalm.model.genes.vocabulary import Vocabulary

HGNC_COLUMNS = (
    *("symbol", "status", "locus_group", "ensembl_gene_id"),
    *("prev_symbol", "alias_symbol", "date_symbol_changed"),
)
# Pseudogenes are left out: most of their reads come from the parent gene, and they would double the tables.
LOCUS_GROUPS = ("protein-coding gene", "non-coding RNA", "other")
# Annotations that single-cell data are aligned to are younger. A symbol given up before means the gene that kept it.
FIRST_YEAR = "2012"


@dataclass
class _Gene:
    symbol: str
    previous: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    changed: str = ""  # date of the last change of the symbol, ISO 8601


def build_vocabulary(hgnc: Path, gencode: Path) -> Vocabulary:
    """Approved HGNC genes with an Ensembl id, plus genes that GENCODE names and HGNC does not list yet.

    A name that is the current symbol of any gene, also of a pseudogene, is no other name of another gene. A previous
    symbol of one gene is no alias of another. Of two genes that had the same symbol, the one that gave it up since 2012
    keeps it, or the one that is now called so with a 1 added (QARS1); else the name is ambiguous.

    Args:
        hgnc: ``hgnc_complete_set.txt[.gz]``, tab-separated.
        gencode: two columns without header, Ensembl id and name.

    Returns:
        About 30 thousand genes, sorted by Ensembl id.

    Raises ValueError when a table lacks a column.
    """
    table = pd.read_csv(hgnc, sep="\t", dtype=str, keep_default_na=False)
    missing = [name for name in HGNC_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{hgnc} lacks the column '{missing[0]}'. Give HGNC's complete set, tab-separated.")
    names = pd.read_csv(gencode, header=None, names=["id", "name"], dtype=str, keep_default_na=False)
    current = dict(zip(names["id"].str.partition(".")[0], names["name"], strict=True))
    known = table[(table.status == "Approved") & (table.ensembl_gene_id != "")]
    modelled = set(known[known.locus_group.isin(LOCUS_GROUPS)].ensembl_gene_id)
    genes: dict[str, _Gene] = {}
    first = known.locus_group.isin(LOCUS_GROUPS)
    for row in pd.concat([known[first], known[~first]]).itertuples():
        if row.ensembl_gene_id in genes:
            continue
        gene = _Gene(row.symbol, _split(row.prev_symbol), _split(row.alias_symbol), row.date_symbol_changed)
        newest = current.get(row.ensembl_gene_id, "")
        if newest and not newest.startswith("ENSG"):
            gene.previous.insert(0, newest)
        genes[row.ensembl_gene_id] = gene
    symbols = set(table.symbol)
    copies = Counter(current.values())
    for gene_id, name in current.items():
        named = bool(name) and not name.startswith("ENSG") and copies[name] == 1
        if named and gene_id not in genes and name not in symbols:
            genes[gene_id] = _Gene(name)
            modelled.add(gene_id)
    _settle(genes, symbols)
    order = sorted(modelled)
    chosen = [genes[gene_id] for gene_id in order]
    return Vocabulary(
        order, [gene.symbol for gene in chosen], [gene.aliases for gene in chosen], [gene.previous for gene in chosen]
    )


def _settle(genes: dict[str, _Gene], symbols: set[str]) -> None:
    """Remove names from genes that have a weaker claim to them than another gene."""
    symbols = symbols | {gene.symbol for gene in genes.values()}
    owners: dict[str, list[_Gene]] = defaultdict(list)
    for gene in genes.values():
        gene.previous = [name for name in dict.fromkeys(gene.previous) if name not in symbols]
        for name in gene.previous:
            owners[name].append(gene)
    for name, claims in owners.items():
        winner = _last_owner(name, claims)
        for gene in claims:
            if winner is not None and gene is not winner:
                gene.previous.remove(name)
    for gene in genes.values():
        # A number is an id of something else, or nothing.
        names = [name for name in dict.fromkeys(gene.aliases) if not name.isdigit()]
        gene.aliases = [name for name in names if name not in symbols and name not in owners]


def _last_owner(name: str, claims: list[_Gene]) -> _Gene | None:
    renamed = [gene for gene in claims if gene.symbol == f"{name}1"]
    recent = [gene for gene in claims if gene.changed >= FIRST_YEAR]
    for choice in (renamed, recent):
        if len(choice) == 1:
            return choice[0]
    return None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.strip('"').split("|") if part.strip()]
