"""Gene names and Ensembl ids of the columns of a matrix, by the same rules for every kind of file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from scpalm.model.errors import InputError

SYMBOL_COLUMNS = ("symbol", "feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "hgnc_symbol")
ENSEMBL_COLUMNS = ("ensembl_id", "ensembl_ids", "gene_ids", "gene_id", "feature_id", "ensembl", "ensembl_gene_id")
_ENSEMBL_ID = re.compile(r"^ENS[A-Z]*G\d{11}(?:\.\d+)?$", re.MULTILINE)


class GeneTable(Protocol):
    """``var`` of a file: one row per gene."""

    def index(self) -> list[str]:
        """Names of the rows."""
        ...

    def names_of(self, column: str) -> list[str] | None:
        """A column of strings ("" where missing), or None if it is absent or does not hold strings."""
        ...


@dataclass(frozen=True)
class GeneNames:
    """Names of the columns, preferably symbols, and their Ensembl ids ("" where unknown), if the file has any."""

    genes: list[str]
    ensembl_ids: list[str] | None


def name_genes(var: GeneTable, name: str, num_genes: int) -> GeneNames:
    """Find the names of the ``num_genes`` columns of a matrix.

    Names are the index of ``var``, unless the index holds Ensembl ids (or plain numbers) and a column holds symbols.
    Ensembl ids are the index, or a column that holds them. ``name``: the name of the table in messages.

    Raises InputError (``shape-mismatch``).
    """
    names = var.index()
    check_length(len(names), num_genes, name, "genes")
    named_by_id = _mostly_ensembl(names)
    symbols = None
    if named_by_id or all(text.isdigit() for text in names):
        symbols = _first_column(var, SYMBOL_COLUMNS, name, num_genes, ensembl=False)
    if named_by_id:
        # A gene without a symbol keeps its Ensembl id as its name.
        return GeneNames([s or id_ for s, id_ in zip(symbols, names, strict=True)] if symbols else names, names)
    ids = _first_column(var, ENSEMBL_COLUMNS, name, num_genes, ensembl=True)
    if symbols:
        names = [symbol or number for symbol, number in zip(symbols, names, strict=True)]
    return GeneNames(names, ids)


def check_length(length: int, expected: int, what: str, axis: str) -> None:
    """Raise InputError (``shape-mismatch``) if a part of a file does not have the length of its matrix."""
    if length != expected:
        raise InputError(
            "shape-mismatch",
            f"'{what}' has {length} {axis}, but the matrix has {expected}.",
            hint="Write the file again from a valid AnnData object.",
            field=what,
        )


def _first_column(
    var: GeneTable, columns: tuple[str, ...], name: str, length: int, *, ensembl: bool
) -> list[str] | None:
    for column in columns:
        values = var.names_of(column)
        if values is not None and any(values) and (_mostly_ensembl(values) or not ensembl):
            check_length(len(values), length, f"{name}/{column}", "genes")
            return values
    return None


def _mostly_ensembl(names: list[str]) -> bool:
    """Whether more than half of the non-empty names are Ensembl gene ids of any species."""
    given = len(names) - names.count("")
    # One search through the joined names is much faster than matching each name.
    return 2 * sum(1 for _ in _ENSEMBL_ID.finditer("\n".join(names))) > given
